//! In whose name a proxied request goes on: the user of its stream's header, within what the cluster's owner allows, or a credential of its
//! own. Never the agent's.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::core::access::User;
use crate::core::access::impersonation::ClusterCredential;
use crate::core::access::limits::ImpersonationLimits;
use crate::wire::header::ProxyHeader;

/// In whose name a request goes on.
pub(super) enum Name {
    /// The agent impersonates somebody, as these headers say.
    Impersonated(HeaderMap),
    /// By a credential of the cluster itself, which may impersonate in turn.
    Own(ClusterCredential, HeaderMap),
}

/// The name for a stream; else why there is none.
pub(super) fn name_of(header: &ProxyHeader, limits: &ImpersonationLimits) -> Result<Name, String> {
    let unusable = || {
        "the hub sent this request without a user, or with one that HTTP cannot carry; no request goes on in the agent's own name"
            .to_owned()
    };
    if let Some(credential) = &header.credential {
        let headers = impersonated_by(credential).ok_or_else(unusable)?;
        return Ok(Name::Own(credential.clone(), headers));
    }
    let headers = impersonation(header).ok_or_else(unusable)?;
    limits.check(&User {
        name: header.user.clone(),
        groups: header.groups.clone(),
        extra: header.extra.clone(),
    })?;
    Ok(Name::Impersonated(headers))
}

/// The API server decides whether the credential may impersonate.
fn impersonated_by(credential: &ClusterCredential) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (field, value) in &credential.impersonate {
        let name = match field.as_str() {
            "user" => "impersonate-user",
            "uid" => "impersonate-uid",
            "group" => "impersonate-group",
            _ => return None,
        };
        headers.append(name, HeaderValue::from_str(value).ok()?);
    }
    Some(headers)
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
            body: false,
            credential: None,
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
    fn the_owner_outranks_the_hub_and_a_credential_speaks_for_itself() {
        let limits = ImpersonationLimits::default();
        assert!(name_of(&header("alice"), &limits).is_ok());
        assert!(name_of(&header("system:admin"), &limits).is_err_and(|why| why.contains("--allow-users")));
        let mut own = header("");
        own.credential = Some(ClusterCredential {
            impersonate: vec![("user".to_owned(), "bob".to_owned())],
            ..ClusterCredential::bearer("t")
        });
        let Ok(Name::Own(_, headers)) = name_of(&own, &limits) else {
            panic!("refused")
        };
        assert_eq!((headers.len(), headers["impersonate-user"].to_str().unwrap()), (1, "bob"));
        own.credential = Some(ClusterCredential {
            impersonate: vec![("extra".to_owned(), "x".to_owned())],
            ..ClusterCredential::bearer("t")
        });
        assert!(name_of(&own, &limits).is_err());
    }
}
