//! The login itself: who we are, and the proof of it.

use bytes::BytesMut;
use pgweir_auth::{
    Challenge, ChannelBinding, Mechanism, ServerAuthentication, ServerLogin, ServerStep,
};
use pgweir_net::Stream;
use pgweir_wire::backend::Authentication;
use pgweir_wire::frontend;
use pgweir_wire::tag::backend as tag;

use super::connect_failure;
use super::opening::{Opening, Refused, Trouble, login_failure};
use crate::clients::credentials;

impl Opening<'_> {
    /// Sends the startup packet and proves who we are.
    pub(super) async fn log_in(&mut self) -> Result<(), Trouble> {
        let startup = self.startup_message();
        self.send(&startup).await?;
        let mut exchange = Some(ServerAuthentication::new(self.server_login()?));
        loop {
            let (tag, body) = self.message().await?;
            if tag == tag::NEGOTIATE_PROTOCOL_VERSION {
                continue;
            }
            if tag != tag::AUTHENTICATION {
                return Err(connect_failure("unknown pkt from server").into());
            }
            let current = exchange.take().expect("put back at the end of every round");
            let request = Authentication::parse(&body)
                .map_err(|_| Trouble::from(connect_failure("bad packet")))?;
            let challenge = match request {
                Authentication::Ok => {
                    return current
                        .authenticated()
                        .map_err(|error| refused(&error.to_string()));
                }
                Authentication::CleartextPassword => Challenge::CleartextPassword,
                Authentication::Md5Password { salt } => Challenge::Md5Password { salt },
                Authentication::Sasl(names) => {
                    Challenge::Sasl(names.into_iter().filter_map(Mechanism::from_name).collect())
                }
                Authentication::SaslContinue(data) => Challenge::SaslContinue(data.to_vec()),
                Authentication::SaslFinal(data) => Challenge::SaslFinal(data.to_vec()),
                Authentication::Unsupported(code) => {
                    return Err(refused(&format!("unsupported authentication type {code}")));
                }
            };
            exchange = Some(self.respond(current, challenge).await?);
        }
    }

    async fn respond(
        &mut self,
        exchange: ServerAuthentication,
        challenge: Challenge,
    ) -> Result<ServerAuthentication, Trouble> {
        let mut step = exchange.respond(challenge);
        loop {
            step = match step {
                ServerStep::Send(payload, next) => {
                    let mut out = BytesMut::new();
                    frontend::password(&mut out, payload.expose());
                    self.send(&out).await?;
                    return Ok(next);
                }
                ServerStep::Derive(job, waiting) => {
                    let keys = credentials::derive(self.shared, job).await;
                    waiting.resume(&keys)
                }
                ServerStep::Verified(next) => return Ok(next),
                ServerStep::Fail(failure) => {
                    if failure.is_about_secret() {
                        self.refused = Some(Refused::Secret);
                    }
                    return Err(refused(&failure.to_string()));
                }
            };
        }
    }

    fn server_login(&self) -> Result<ServerLogin, Trouble> {
        let home = &self.info.home;
        let stream = self.talk.as_ref().map(|talk| &talk.stream);
        let binding = stream.and_then(Stream::server_end_point_binding);
        Ok(ServerLogin {
            user: home.name.user.to_string(),
            secret: self.secret.secret.clone(),
            channel_binding: binding.map_or(ChannelBinding::Unavailable, ChannelBinding::Available),
            nonce: credentials::nonce(),
        })
    }
}

/// We cannot answer what the server asks: every client of the pool would fail alike.
pub(super) fn refused(reason: &str) -> Trouble {
    login_failure(
        "failed to answer authreq",
        format!("server login failed: {reason}"),
    )
}
