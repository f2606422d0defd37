//! SHOW FDS, as PgBouncer's successor reads it: one row for each socket, and while everything is
//! suspended the sockets themselves.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgweir_auth::{Secret, ServerSecret};
use pgweir_config::AuthType;
use pgweir_console::Table;
use pgweir_console::tables::{FDS, FdRow, FdTask};
use pgweir_net::{Address, Stream};
use pgweir_pool::{SlotId, SlotState};
use pgweir_session::Values;
use pgweir_wire::CancelKey;

use super::give::{Everything, is_plain_to_others};
use super::successor::{give_rows, in_time, unless_let_go};
use crate::clients::client::Client;
use crate::operators::show;
use crate::servers::server::ServerInfo;
use crate::shared::{Hold, Shared, lock};

/// Writes the answer to SHOW FDS. While everything is held, a console that is this process's own user gets the socket of
/// each row with it.
pub(crate) async fn write(
    shared: &Arc<Shared>,
    client: &Client,
    stream: &mut Stream,
) -> io::Result<()> {
    let gives = give_rows(shared, client);
    let held = Everything::lend(shared);
    let rows = rows(shared, &held);
    if gives {
        let written = unless_let_go(shared, held.releases, write_rows(rows, stream)).await;
        held.put_back();
        return written;
    }
    let rows = rows.into_iter().map(|(row, _)| (row, None)).collect();
    held.put_back();
    write_rows(rows, stream).await
}

async fn write_rows(rows: Vec<Row<'_>>, stream: &mut Stream) -> io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let mut out = Vec::new();
    FDS.write_description(&mut out);
    in_time(stream.write_all(&out)).await?;
    for (row, socket) in rows {
        out.clear();
        FDS.write_row(&row, &mut out);
        match socket {
            Some(socket) => in_time(stream.write_with_fd(&out, socket)).await?,
            None => in_time(stream.write_all(&out)).await?,
        }
    }
    out.clear();
    Table::<FdRow>::write_end(&mut out);
    in_time(stream.write_all(&out)).await
}

type Row<'a> = (FdRow, Option<BorrowedFd<'a>>);

fn rows<'a>(shared: &Shared, held: &'a Everything<'_>) -> Vec<Row<'a>> {
    let mut rows: Vec<_> = held.listeners.iter().map(|l| listener(l)).collect();
    let suspended = shared.operator.hold() == Hold::Suspended;
    let mut clients: Vec<_> = shared
        .clients
        .iter()
        .filter(|client| !client.is_console.load(Ordering::Relaxed))
        .map(|client| Arc::clone(&client))
        .collect();
    clients.sort_by_key(|client| client.id);
    for of_client in &clients {
        match held.sessions.get(&of_client.id) {
            Some(session) if !is_plain_to_others(session) => {}
            Some(session) => {
                let row = client(shared, of_client, Some(&session.side().values));
                rows.push((row, Some(session.line.stream().as_fd())));
            }
            // Whoever is not held now will be closed, or is logging in.
            None if suspended => {}
            None if of_client.tls.get().is_some() => {}
            None => rows.push((client(shared, of_client, None), None)),
        }
    }
    let holders = show::sockets::holders(shared);
    let row = |slot: SlotId, info: &ServerInfo, values: Option<&Values>| {
        server(
            shared,
            info,
            holders.get(&slot).map(|client| &**client),
            values,
        )
    };
    if suspended {
        let lent = held
            .sessions
            .values()
            .filter(|session| is_plain_to_others(session));
        let lent = lent.filter_map(|session| session.server());
        let idle = held.servers.iter().map(|(slot, server)| (*slot, &**server));
        for (slot, server) in lent.chain(idle) {
            if server.info.tls.get().is_none() {
                let row = row(slot, &server.info, Some(server.relay.values()));
                rows.push((row, Some(server.line.stream().as_fd())));
            }
        }
    } else {
        let servers = running_servers(shared);
        rows.extend(servers.map(|(slot, info)| (row(slot, &info, None), None)));
    }
    rows
}

/// Servers that are neither being opened nor ended, and speak no TLS.
fn running_servers(shared: &Shared) -> impl Iterator<Item = (SlotId, Arc<ServerInfo>)> {
    let slots: Vec<_> = shared.pools().slots().collect();
    slots.into_iter().filter_map(|slot| {
        let runs = slot.state.is_open() && slot.state != SlotState::Opening;
        let info = Arc::clone(&*shared.servers.get(&slot.id.serial()).filter(|_| runs)?);
        info.tls.get().is_none().then_some((slot.id, info))
    })
}

fn listener(listener: &pgweir_net::Listener) -> Row<'_> {
    let fd = listener.as_fd();
    let host = match listener.name().rsplit_once(':') {
        Some((host, _)) if !listener.is_unix() => host.trim_matches(['[', ']']),
        _ => "unix",
    };
    let row = FdRow {
        fd: fd.as_raw_fd(),
        addr: host.to_owned(),
        port: listener.port(),
        ..empty(FdTask::Pooler)
    };
    (row, Some(fd))
}

fn client(shared: &Shared, client: &Client, values: Option<&Values>) -> FdRow {
    let identity = client.identity.get();
    // It need not be the one that the client asked for.
    let user = client.route().map(|route| Arc::clone(&route.user));
    let link = client.state().link;
    let link = link.and_then(|slot| shared.servers.get(&slot.serial())?.fd.get().copied());
    let secrets = secrets(shared, client);
    FdRow {
        fd: client.fd,
        user: user.or_else(|| identity.map(|identity| Arc::clone(&identity.user))),
        database: identity.map(|identity| Arc::clone(&identity.database)),
        link: link.unwrap_or(0),
        cancel: number(client.cancel_key.get()),
        password: secrets.password,
        scram_client_key: secrets.client_key,
        scram_server_key: secrets.server_key,
        ..connection(shared, FdTask::Client, client.address, values)
    }
}

fn server(
    shared: &Shared,
    info: &ServerInfo,
    holder: Option<&Client>,
    values: Option<&Values>,
) -> FdRow {
    FdRow {
        fd: info.fd.get().copied().unwrap_or(0),
        user: Some(Arc::clone(&info.home.name.user)),
        database: Some(Arc::clone(&info.home.name.database)),
        link: holder.map_or(0, |client| client.fd),
        cancel: number(info.cancel_key.get()),
        ..connection(shared, FdTask::Server, info.address, values)
    }
}

fn connection(shared: &Shared, task: FdTask, address: Address, values: Option<&Values>) -> FdRow {
    let value = |name: &str| {
        let index = shared.tracked.index(name)?;
        values?.get(index).map(|value| value.to_string())
    };
    FdRow {
        addr: address.host().to_string(),
        port: address.port(),
        client_encoding: value("client_encoding"),
        std_strings: value("standard_conforming_strings"),
        datestyle: value("DateStyle"),
        timezone: value("TimeZone"),
        ..empty(task)
    }
}

fn empty(task: FdTask) -> FdRow {
    FdRow {
        fd: 0,
        task,
        user: None,
        database: None,
        addr: String::new(),
        port: 0,
        cancel: 0,
        link: 0,
        client_encoding: None,
        std_strings: None,
        datestyle: None,
        timezone: None,
        password: None,
        scram_client_key: None,
        scram_server_key: None,
    }
}

/// A cancel key as one number; of a long key only the beginning fits.
fn number(key: Option<&CancelKey>) -> i64 {
    let bytes = super::parcel::key_bytes(key).0;
    let first = bytes.first_chunk().copied();
    first.map_or(0, i64::from_be_bytes)
}

#[derive(Default)]
struct Secrets {
    password: Option<String>,
    client_key: Option<[u8; 32]>,
    server_key: Option<[u8; 32]>,
}

/// What a successor could not look up: the secret of a user from auth_query, and the keys of one who
/// has logged in by SCRAM. A PgBouncer wants no keys for a forced user or with PAM.
fn secrets(shared: &Shared, client: &Client) -> Secrets {
    let Some(route) = client.route() else {
        return Secrets::default();
    };
    let rules = route.rules();
    let auth_type = rules.config.global.auth_type;
    if rules.database.keys.user.is_some() || auth_type == AuthType::Pam {
        return Secrets::default();
    }
    let Some(secret) = lock(&route.home.secret).clone() else {
        return Secrets::default();
    };
    let (secret, keys) = match secret {
        ServerSecret::Plain(password) => (Secret::Plain(password), None),
        ServerSecret::Md5(secret) => (Secret::Md5(secret), None),
        ServerSecret::Scram(secret) => (Secret::Scram(secret), None),
        ServerSecret::Keys(keys) => (Secret::Scram(keys.secret.clone()), Some(keys)),
    };
    let is_looked_up =
        rules.settings.auth_user.is_some() && shared.files().users.secret(&route.user).is_none();
    Secrets {
        password: String::from_utf8(secret.expose().to_vec())
            .ok()
            .filter(|_| is_looked_up),
        client_key: keys.as_ref().map(|keys| *keys.client_key.expose()),
        server_key: keys.as_ref().map(|keys| *keys.secret.server_key.expose()),
    }
}
