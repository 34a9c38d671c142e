//! In whose name a proxied request goes on: the user of its stream's header, within what the cluster's owner allows. Never the agent's.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::core::access::User;
use crate::core::access::limits::ImpersonationLimits;
use crate::wire::header::ProxyHeader;

/// The headers in whose name a stream's requests go on; else why there are none.
pub(super) fn identity_of(header: &ProxyHeader, limits: &ImpersonationLimits) -> Result<HeaderMap, String> {
    let headers = impersonation(header).ok_or(
        "the hub sent this request without a user, or with one that HTTP cannot carry; no request goes on in the agent's own name",
    )?;
    limits.check(&User {
        name: header.user.clone(),
        groups: header.groups.clone(),
        extra: header.extra.clone(),
    })?;
    Ok(headers)
}

/// The headers by which the API server knows for whom it works; nothing without a user.
fn impersonation(header: &ProxyHeader) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if header.user.is_empty() {
        return None;
    }
    headers.insert("impersonate-user", HeaderValue::from_str(&header.user).ok()?);
    for group in &header.groups {
        headers.append("impersonate-group", HeaderValue::from_str(group).ok()?);
    }
    for (name, values) in &header.extra {
        let name = format!("impersonate-extra-{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
        let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).ok()?;
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).ok()?);
        }
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use super::*;
    use crate::wire::header::RequestClass;

    fn header(user: &str) -> ProxyHeader {
        ProxyHeader {
            target: "direct".into(),
            user: user.into(),
            groups: vec!["branchline:admins".into(), "dev".into()],
            extra: BTreeMap::from([("example.org/scopes".to_owned(), vec!["view".to_owned()])]),
            class: RequestClass::Short,
        }
    }

    #[test]
    fn the_stream_header_becomes_impersonation() {
        let headers = impersonation(&header("alice")).unwrap();
        assert_eq!(headers["impersonate-user"], "alice");
        assert_eq!(headers.get_all("impersonate-group").iter().count(), 2);
        assert_eq!(headers["impersonate-extra-example%2eorg%2fscopes"], "view");
        assert!(impersonation(&header("")).is_none());
        assert!(impersonation(&header("al\r\nice")).is_none());
    }

    #[test]
    fn the_owner_outranks_the_hub() {
        let limits = ImpersonationLimits::default();
        assert!(identity_of(&header("alice"), &limits).is_ok());
        assert!(identity_of(&header("system:admin"), &limits).is_err_and(|why| why.contains("--allow-users")));
        assert!(identity_of(&header(""), &limits).is_err_and(|why| why.contains("without a user")));
    }
}
