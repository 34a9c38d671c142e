//! Where a proxied request goes within a cluster, and what an agent's owner lets through. Pure; resolves no name.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

/// The longest host name (RFC 1035).
const LONGEST_HOST: usize = 253;

/// Where a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The cluster's own API server.
    Direct,
    /// A service that the agent may reach.
    Service(Service),
}

/// A service beside the API server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// How to talk to it.
    pub scheme: Scheme,
    /// DNS name in lower case, or an address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// How to talk to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// In the clear, port 80 unless another is stated.
    Http,
    /// With TLS, port 443 unless another is stated.
    Https,
}

/// A text that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no target ({problem}); what there is: direct, https/<host[:port]>, http/<host[:port]>")]
pub struct InvalidTarget {
    text: String,
    problem: &'static str,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl Service {
    /// Host and port as a URL writes them, always with the port.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Direct => f.write_str("direct"),
            Target::Service(service) => write!(f, "{}/{}", service.scheme.as_str(), service.authority()),
        }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem| InvalidTarget {
            text: text.chars().take(80).collect(),
            problem,
        };
        let (scheme, authority) = match text.split_once('/') {
            None if text == "direct" => return Ok(Target::Direct),
            Some(("http", authority)) => (Scheme::Http, authority),
            Some(("https", authority)) => (Scheme::Https, authority),
            _ => return Err(invalid("it begins with neither http/ nor https/")),
        };
        let (host, port) = split_port(authority).map_err(invalid)?;
        Ok(Target::Service(Service {
            scheme,
            host: check_host(host).map_err(invalid)?,
            port: port.unwrap_or(scheme.port()),
        }))
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match authority.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, rest))) => (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some("?"))),
        Some(None) => return Err("its bracket is not closed"),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match port {
        None => Ok((host, None)),
        Some(port) => number(port)
            .map(|port| (host, Some(port)))
            .ok_or("its port is no number from 1 to 65535"),
    }
}

fn check_host(host: &str) -> Result<String, &'static str> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || host.len() > LONGEST_HOST || !host.bytes().all(is_fit) {
        return Err("its host is neither a DNS name nor an address");
    }
    Ok(host.to_ascii_lowercase())
}

/// The services that an agent's owner lets requests through to; none unless stated.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reachable(Vec<Pattern>);

/// `HOST`, `HOST:PORT`, `*.SUFFIX` or `*.SUFFIX:PORT`; without a port, every port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    host: HostPattern,
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum HostPattern {
    Exactly(String),
    /// With its leading dot.
    Below(String),
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no HOST[:PORT] ({problem}); for example grafana.monitoring.svc:3000 or *.svc")]
pub struct InvalidPattern {
    text: String,
    problem: &'static str,
}

impl Reachable {
    /// Lets through what any of these patterns allows.
    pub fn new(patterns: Vec<Pattern>) -> Self {
        Reachable(patterns)
    }

    /// Whether nothing is let through.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether requests to this service are let through.
    pub fn allows(&self, service: &Service) -> bool {
        self.0.iter().any(|pattern| pattern.allows(service))
    }
}

impl Pattern {
    fn allows(&self, service: &Service) -> bool {
        let is_host = match &self.host {
            HostPattern::Exactly(host) => *host == service.host,
            // An address has no parent, though `1.2.3.4` ends with `.4`.
            HostPattern::Below(suffix) => service.host.parse::<IpAddr>().is_err() && service.host.ends_with(suffix),
        };
        is_host && self.port.is_none_or(|port| port == service.port)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem| InvalidPattern {
            text: text.chars().take(80).collect(),
            problem,
        };
        let (host, port) = split_port(text).map_err(invalid)?;
        let host = match host.strip_prefix("*.") {
            Some(suffix) => HostPattern::Below(format!(".{}", check_host(suffix).map_err(invalid)?)),
            None if host.contains('*') => return Err(invalid("a * stands only for the first part of a name, as in *.svc")),
            None => HostPattern::Exactly(check_host(host).map_err(invalid)?),
        };
        Ok(Pattern { host, port })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn service(target: &str) -> Service {
        match target.parse().unwrap() {
            Target::Service(service) => service,
            Target::Direct => panic!("{target} is no service"),
        }
    }

    #[test]
    fn targets_survive_the_wire() {
        for (text, written) in [
            ("direct", "direct"),
            ("https/Grafana.monitoring.svc", "https/grafana.monitoring.svc:443"),
            ("http/10.0.0.1", "http/10.0.0.1:80"),
            ("http/localhost:8080", "http/localhost:8080"),
            ("https/[::1]:8443", "https/[::1]:8443"),
            ("https/[0:0::1]", "https/[::1]:443"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), written);
            assert_eq!(written.parse::<Target>().unwrap(), target);
        }
        for text in [
            "",
            "directory",
            "ftp/a",
            "https",
            "https/",
            "http/a:",
            "http/a:0",
            "http/a:65536",
            "http/a:80:80",
            "http/user@a",
            "http/a b",
            "http/[::1",
            "http/[::1]8",
            "http/a%2f",
            "http/é",
            "http/a/b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        assert!(format!("http/{}", "a".repeat(254)).parse::<Target>().is_err());
    }

    #[test]
    fn only_what_is_listed_is_let_through() {
        let patterns = ["grafana.monitoring.svc:3000", "*.Shop.svc", "10.0.0.7", "[::1]:9090"];
        let reachable = Reachable::new(patterns.map(|pattern| pattern.parse().unwrap()).into());
        for (target, allowed) in [
            ("http/grafana.monitoring.svc:3000", true),
            ("https/GRAFANA.monitoring.svc:3000", true),
            ("http/grafana.monitoring.svc", false),
            ("http/web.shop.svc:8080", true),
            ("http/a.b.shop.svc", true),
            ("http/shop.svc", false),
            ("http/webshop.svc", false),
            ("http/web.shop.svc.evil.example", false),
            ("https/10.0.0.7", true),
            ("https/10.0.0.70", false),
            ("https/[0::1]:9090", true),
            ("https/[::2]:9090", false),
        ] {
            assert_eq!(reachable.allows(&service(target)), allowed, "{target}");
        }
        assert!(!Reachable::default().allows(&service("http/localhost")));
        let suffix = Reachable::new(vec!["*.4".parse().unwrap()]);
        assert!(!suffix.allows(&service("http/1.2.3.4")), "an address has no parent");
        for pattern in ["", "*", "a*", "*.", "a.*.b", "a:b", "http://a", "*:80"] {
            assert!(pattern.parse::<Pattern>().is_err(), "{pattern}");
        }
    }
}
