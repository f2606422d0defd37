//! Where answers come from: the system's resolver, or name servers asked by ourselves.
//!
//! Addresses come from the system, which knows `/etc/hosts`, `nsswitch.conf` and whatever else the
//! machine's administrator has set up. With a `resolv.conf` of our own they come from its name
//! servers, after `/etc/hosts`. What the system's resolver cannot be asked, serials of zones and
//! service records, always comes from name servers.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use super::message::{Kind, Record};
use super::resolv_conf::{self, ResolvConf};
use super::{DnsError, Outcome, hosts, servers};
use crate::os_text;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// A `resolv.conf` of our own.
    resolv_conf: Option<PathBuf>,
}

impl Source {
    pub(super) fn new(resolv_conf: Option<&Path>) -> Self {
        Self {
            resolv_conf: resolv_conf.map(Path::to_owned),
        }
    }

    /// The addresses of a name, of one family.
    pub(super) async fn addresses(self, name: String) -> Outcome {
        let found = match self.resolv_conf {
            None => ask_system(&name).await,
            Some(_) => self.ask_servers(&name).await,
        };
        let mut addresses = Vec::new();
        for ip in found.map_err(|reason| failed(&name, reason))? {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        match addresses.is_empty() {
            true => Err(failed(&name, "the name has no address".to_owned())),
            false => Ok(of_one_family(addresses, has_route).into()),
        }
    }

    async fn ask_servers(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        // A machine without this file has no names of its own.
        let hosts = read(Path::new(hosts::FILE)).await.unwrap_or_default();
        let written_down = hosts::addresses(&hosts, name);
        if !written_down.is_empty() {
            return Ok(written_down);
        }
        let conf = self.conf().await?;
        let found = servers::search(&conf, name).await?;
        let addresses = found.into_iter().filter_map(|record| match record {
            Record::Address(ip) => Some(ip),
            Record::Serial(_) | Record::Service { .. } => None,
        });
        Ok(addresses.collect())
    }

    /// The serial of a zone.
    pub(super) async fn serial(&self, zone: &str) -> Result<u32, DnsError> {
        let records = self.records(zone, Kind::Soa).await?;
        let serial = records.into_iter().find_map(|record| match record {
            Record::Serial(serial) => Some(serial),
            Record::Address(_) | Record::Service { .. } => None,
        });
        serial.ok_or_else(|| failed(zone, "it is no zone".to_owned()))
    }

    /// Hosts and ports of a service, in the order in which they are to be tried.
    pub(super) async fn services(&self, name: &str) -> Result<Vec<(String, u16)>, DnsError> {
        let records = self.records(name, Kind::Srv).await?;
        let mut found: Vec<_> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::Service {
                    priority,
                    weight,
                    port,
                    host,
                } => Some(((priority, u16::MAX - weight), (host, port))),
                Record::Address(_) | Record::Serial(_) => None,
            })
            .collect();
        found.sort_by_key(|(order, _)| *order);
        let places = found.into_iter().map(|(_, place)| place);
        // A lone dot says that there is no such service.
        Ok(places.filter(|(host, _)| !host.is_empty()).collect())
    }

    /// The records of exactly this name, whatever domains are searched for short names.
    async fn records(&self, name: &str, kind: Kind) -> Result<Vec<Record>, DnsError> {
        let asked = async {
            let conf = self.conf().await?;
            servers::ask(&conf, name, kind).await
        };
        asked.await.map_err(|reason: String| failed(name, reason))
    }

    /// Read anew for each question: they are rare, and the file may have changed.
    async fn conf(&self) -> Result<ResolvConf, String> {
        let path = self.resolv_conf.as_deref();
        let path = path.unwrap_or(Path::new(resolv_conf::SYSTEM_FILE));
        let text = read(path).await;
        text.map(|text| ResolvConf::parse(&text))
            .map_err(|reason| format!("{}: {reason}", path.display()))
    }
}

/// Reads a file where it is nobody's turn.
async fn read(path: &Path) -> Result<String, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    match read {
        Ok(text) => text.map_err(|error| os_text(&error)),
        Err(_) => Err("reading was abandoned".to_owned()),
    }
}

async fn ask_system(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = tokio::net::lookup_host((name, 0)).await;
    let found = found.map_err(|error| {
        let text = error.to_string();
        let reason = text.strip_prefix("failed to lookup address information: ");
        reason.unwrap_or(&text).to_owned()
    })?;
    Ok(found.map(|address| address.ip()).collect())
}

/// One family, because addresses are used in turn and many machines reach only one: IPv4 if there is
/// any and a way to it, else IPv6.
fn of_one_family(addresses: Vec<IpAddr>, is_reached: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let (four, six): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    match six.is_empty() || four.iter().any(|ip| is_reached(*ip)) {
        true => four,
        false => six,
    }
}

/// Whether this machine has a way to an IPv4 address; nothing is sent.
fn has_route(ip: IpAddr) -> bool {
    const DISCARD: u16 = 9;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    socket
        .and_then(|socket| socket.connect((ip, DISCARD)))
        .is_ok()
}

fn failed(name: &str, reason: String) -> DnsError {
    DnsError {
        name: name.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_one_family() {
        let ips =
            |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|ip| ip.parse().unwrap()).collect() };
        let both = ips(&["::1", "10.0.0.1", "::2", "10.0.0.2"]);
        let (four, six) = (ips(&["10.0.0.1", "10.0.0.2"]), ips(&["::1", "::2"]));
        assert_eq!(of_one_family(both.clone(), |_| true), four);
        assert_eq!(of_one_family(both, |_| false), six);
        // Without a choice, what may be reached later is not thrown away.
        assert_eq!(of_one_family(four.clone(), |_| false), four);
        assert_eq!(of_one_family(six.clone(), |_| true), six);
        assert!(has_route(Ipv4Addr::LOCALHOST.into()));
    }
}
