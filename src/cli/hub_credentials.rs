//! The arguments of `branchline hub` about who users are, named as kube-apiserver names them.

use std::path::PathBuf;

use super::CliError;
use crate::core::access::claims::ClaimRules;
use crate::hub::UserCredentials;
use crate::hub::auth::{OidcConfig, SigningAlgorithm};

/// By what users prove who they are, besides client certificates.
#[derive(Debug, clap::Args)]
pub(super) struct CredentialArgs {
    /// File of static tokens, one line each: digest,user,uid,"groups",end; `branchline token user` makes the lines. What changes there counts
    /// from the next request on
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// OpenID Connect: the issuer's URL, https only
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// The client id that ID tokens have to be for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub", requires = "oidc_issuer_url")]
    oidc_username_claim: String,
    /// What stands before user names: - for nothing [default: the issuer and #, nothing for the claim email]
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    oidc_username_prefix: Option<String>,
    /// The claim that lists the user's groups
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    oidc_groups_claim: Option<String>,
    /// What stands before groups
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true,
        requires = "oidc_issuer_url"
    )]
    oidc_groups_prefix: String,
    /// The CA of the issuer, PEM [default: the system's]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    oidc_ca_file: Option<PathBuf>,
    /// A claim that has to be there with this value; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", requires = "oidc_issuer_url")]
    oidc_required_claim: Vec<String>,
    /// Signature algorithms that are taken
    #[arg(
        long,
        value_name = "ALG,…",
        value_delimiter = ',',
        default_value = "RS256",
        requires = "oidc_issuer_url"
    )]
    oidc_signing_algs: Vec<SigningAlgorithm>,
    /// Let requests through to clusters that carry a credential of the cluster and none of this hub, as far as rules for the group
    /// system:unauthenticated reach: then the cluster's own authentication is all that guards it
    #[arg(long)]
    allow_anonymous_cluster_credentials: bool,
}

impl CredentialArgs {
    pub(super) fn into_config(self) -> Result<UserCredentials, CliError> {
        let required = self.oidc_required_claim.iter().map(|pair| match pair.split_once('=') {
            Some((claim, value)) if !claim.is_empty() => Ok((claim.to_owned(), value.to_owned())),
            _ => Err(CliError::usage(
                format!("--oidc-required-claim {pair:?} is not of the form claim=value"),
                "",
            )),
        });
        let required = required.collect::<Result<Vec<_>, _>>()?;
        let oidc = self.oidc_issuer_url.map(|issuer| OidcConfig {
            rules: ClaimRules {
                username_prefix: ClaimRules::prefix_of(self.oidc_username_prefix.as_deref(), &issuer, &self.oidc_username_claim),
                issuer,
                client_id: self.oidc_client_id.unwrap_or_default(),
                username_claim: self.oidc_username_claim,
                groups_claim: self.oidc_groups_claim,
                groups_prefix: self.oidc_groups_prefix,
                required,
            },
            ca_file: self.oidc_ca_file,
            algorithms: self.oidc_signing_algs,
        });
        Ok(UserCredentials {
            token_file: self.token_auth_file,
            oidc,
            anonymous_cluster_credentials: self.allow_anonymous_cluster_credentials,
        })
    }
}
