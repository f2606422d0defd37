//! Cancel requests among peers: several poolers behind one address, each with a `peer_id`.
//!
//! A key says which peer gave it out: bytes 1 and 2 (counted from 0) are the peer's id, little
//! endian, and the last two bits of byte 7 are how often a request may still be passed on. This is
//! PgBouncer's layout, so both kinds of pooler can be peers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgweir_config::{Host, Peer};
use pgweir_net::{Target, UnixName, connect};
use pgweir_wire::CancelKey;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clients::cancel;
use crate::clients::underway::{Underway, UnderwayCounts};
use crate::servers::names;
use crate::shared::{Shared, lock};

/// How long passing a request on may take where `cancel_wait_timeout` sets no limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// Places for requests on their way to each peer. Anybody can send one, with a key that he has made up.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<HashMap<u32, Lane>>);

#[derive(Clone, Debug)]
struct Lane {
    size: usize,
    places: Arc<Semaphore>,
    underway: Arc<Underway>,
}

impl Lanes {
    /// Those of a peer, as many as its pool is large. Where that has changed, those that are taken do not count.
    fn of(&self, peer: u32, pool_size: Option<u32>) -> Lane {
        let size = pool_size.and_then(|size| usize::try_from(size).ok());
        let size = size.map_or(Semaphore::MAX_PERMITS, |size| size.max(1));
        let mut lanes = lock(&self.0);
        let before = lanes.get(&peer);
        if let Some(lane) = before.filter(|lane| lane.size == size) {
            return lane.clone();
        }
        let underway = before.map(|lane| Arc::clone(&lane.underway));
        let lane = Lane {
            size,
            places: Arc::new(Semaphore::new(size)),
            underway: underway.unwrap_or_default(),
        };
        lanes.insert(peer, lane.clone());
        lane
    }

    /// Requests on their way to a peer; `None` if there never was one.
    pub(crate) fn underway(&self, peer: u32) -> Option<UnderwayCounts> {
        let lanes = lock(&self.0);
        lanes.get(&peer).map(|lane| lane.underway.counts())
    }
}

/// The bits of the last byte that count down.
const TTL_MASK: u8 = 0b11;

/// Writes a peer's id and a full count into a new key of 8 bytes. Id 0 means no peers.
pub(crate) fn stamp(key: CancelKey, peer_id: u16) -> CancelKey {
    let Some(mut bytes) = to_bytes(&key).filter(|_| peer_id > 0) else {
        return key;
    };
    [bytes[1], bytes[2]] = peer_id.to_le_bytes();
    bytes[7] |= TTL_MASK;
    from_bytes(bytes)
}

/// What to do with a request at the peer `own_id`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Destination {
    /// It is for a client of this process, whose key is this.
    Here(CancelKey),
    /// It is for this peer, with this key.
    Peer(u16, CancelKey),
    /// It has been passed on too often.
    Nowhere,
}

/// Where a request has to go.
pub(crate) fn destination(key: &CancelKey, own_id: u16) -> Destination {
    let Some(mut bytes) = to_bytes(key).filter(|_| own_id > 0) else {
        return Destination::Here(key.clone());
    };
    let peer = u16::from_le_bytes([bytes[1], bytes[2]]);
    if peer == own_id {
        bytes[7] |= TTL_MASK;
        return Destination::Here(from_bytes(bytes));
    }
    if bytes[7] & TTL_MASK == 0 {
        return Destination::Nowhere;
    }
    bytes[7] -= 1;
    Destination::Peer(peer, from_bytes(bytes))
}

/// Passes a request on, and waits until the peer has dealt with it. Gives what became of it.
pub(crate) async fn forward(shared: &Arc<Shared>, id: u16, key: &CancelKey) -> &'static str {
    let config = shared.config();
    let Some(peer) = config.peers.get(&u32::from(id)) else {
        return "could not find peer to forward request to";
    };
    let wait = config.global.cancel_wait_timeout.limit();
    let lane = shared.peer_lanes.of(peer.id, config.peer_pool_size(peer));
    let sent = async {
        let waiting = lane.underway.wait();
        let _place = lane.places.acquire().await;
        drop(waiting);
        send(shared, peer, key, &lane.underway).await
    };
    match timeout(wait.unwrap_or(PATIENCE), sent).await {
        Ok(Ok(())) => "successfully sent cancel request",
        Ok(Err(error)) => {
            tracing::warn!("cancel request could not reach peer {id}: {error}");
            "failed to send cancel request"
        }
        Err(_) => "cancel_wait_timeout",
    }
}

async fn send(
    shared: &Shared,
    peer: &Peer,
    key: &CancelKey,
    underway: &Underway,
) -> Result<(), String> {
    let connecting = underway.connect();
    let target = target(shared, peer).await?;
    let stream = connect(&target, &shared.tcp_options())
        .await
        .map_err(|error| error.to_string())?;
    drop(connecting);
    let _sent = underway.send();
    cancel::deliver(stream, key).await
}

async fn target(shared: &Shared, peer: &Peer) -> Result<Target, String> {
    let name = match peer.host.list().first() {
        Some(Host::Tcp(name)) => name,
        Some(Host::Unix(dir)) => return Ok(Target::Unix(UnixName::in_dir(dir, peer.port()))),
        None => return Err("it has no host".to_owned()),
    };
    let ip = names::resolve(shared, name).await;
    let ip = ip.ok_or_else(|| format!("{name} has no address"))?;
    Ok(Target::Tcp((ip, peer.port()).into()))
}

/// The 8 bytes of a key of protocol 3.0, which is given out wherever there are peers: no PgBouncer takes a longer one.
fn to_bytes(key: &CancelKey) -> Option<[u8; 8]> {
    let secret: [u8; 4] = key.secret.as_ref().try_into().ok()?;
    let [a, b, c, d] = key.process_id.to_be_bytes();
    let [e, f, g, h] = secret;
    Some([a, b, c, d, e, f, g, h])
}

fn from_bytes([a, b, c, d, secret @ ..]: [u8; 8]) -> CancelKey {
    CancelKey {
        process_id: i32::from_be_bytes([a, b, c, d]),
        secret: secret.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: [u8; 8]) -> CancelKey {
        from_bytes(bytes)
    }

    #[test]
    fn a_key_names_its_peer() {
        let stamped = stamp(key([1, 2, 3, 4, 5, 6, 7, 0]), 0x0102);
        assert_eq!(stamped, key([1, 0x02, 0x01, 4, 5, 6, 7, 3]));
        assert_eq!(
            destination(&stamped, 0x0102),
            Destination::Here(stamped.clone())
        );
    }

    #[test]
    fn without_peers_a_key_is_what_it_is() {
        let plain = key([1, 2, 3, 4, 5, 6, 7, 0]);
        assert_eq!(stamp(plain.clone(), 0), plain);
        assert_eq!(destination(&plain, 0), Destination::Here(plain));
    }

    #[test]
    fn a_peer_has_as_many_places_as_its_pool_is_large() {
        let lanes = Lanes::default();
        let lane = lanes.of(1, Some(1));
        let place = lane.places.try_acquire().expect("the first");
        let _sent = lane.underway.send();
        assert!(lanes.of(1, Some(1)).places.try_acquire().is_err());
        assert!(lanes.of(2, Some(1)).places.try_acquire().is_ok());
        // A RELOAD has made it larger.
        assert_eq!(lanes.of(1, Some(3)).places.available_permits(), 3);
        assert_eq!(lanes.underway(1).map(|counts| counts.sent), Some(1));
        drop(place);
        assert!(lanes.of(1, None).places.available_permits() > 1_000);
        assert_eq!(lanes.underway(3), None);
    }

    #[test]
    fn a_request_is_passed_on_three_times() {
        let mut request = stamp(key([0; 8]), 7);
        for _ in 0..3 {
            let Destination::Peer(7, next) = destination(&request, 8) else {
                panic!("passed on")
            };
            request = next;
        }
        assert_eq!(destination(&request, 8), Destination::Nowhere);
        assert_eq!(
            destination(&request, 7),
            Destination::Here(stamp(key([0; 8]), 7))
        );
    }
}
