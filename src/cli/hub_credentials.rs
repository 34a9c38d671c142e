//! The arguments of `branchline hub` about who users are, named as kube-apiserver names them.

use std::path::PathBuf;

use crate::hub::UserCredentials;

/// By what users prove who they are, besides client certificates.
#[derive(Debug, clap::Args)]
pub(super) struct CredentialArgs {
    /// File of static tokens, one line each: digest,user,uid,"groups",end; `branchline token user` makes the lines. What changes there counts
    /// from the next request on
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Let requests through to clusters that carry a credential of the cluster and none of this hub, as far as rules for the group
    /// system:unauthenticated reach: then the cluster's own authentication is all that guards it
    #[arg(long)]
    allow_anonymous_cluster_credentials: bool,
}

impl CredentialArgs {
    pub(super) fn into_config(self) -> UserCredentials {
        UserCredentials {
            token_file: self.token_auth_file,
            anonymous_cluster_credentials: self.allow_anonymous_cluster_credentials,
        }
    }
}
