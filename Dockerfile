# Two stages: the compiler stays behind, and the image that runs holds one program and no root.
FROM rust:1-slim-bookworm AS build
# aws-lc, rustls' cryptography, is C; PostgreSQL is what the profile is taken with.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev postgresql \
    && rm -rf /var/lib/apt/lists/* \
    && rustup component add llvm-tools
WORKDIR /src
COPY . .
RUN cargo xtask dist

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 996 pgbouncer \
    && useradd --system --uid 998 --gid 996 --no-create-home --shell /usr/sbin/nologin pgbouncer \
    && install -d -o pgbouncer -g pgbouncer /run/pgbouncer \
    && install -d /etc/pgbouncer
COPY --from=build /src/target/dist/pgweir /usr/bin/pgweir
# Whatever starts PgBouncer by its name and place finds pgweir there.
RUN ln -s pgweir /usr/bin/pgbouncer && ln -s /usr/bin/pgweir /usr/sbin/pgbouncer
USER 998:996
EXPOSE 6432
# PgBouncer's SIGINT: let the transactions that run finish, then end.
STOPSIGNAL SIGINT
# Or --from-env /run/pgbouncer/pgbouncer.ini, with the variables of other images (docs/migrating-from-pgbouncer.md).
ENTRYPOINT ["/usr/bin/pgweir"]
CMD ["/etc/pgbouncer/pgbouncer.ini"]
