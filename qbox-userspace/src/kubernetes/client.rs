//! Where the API is, and a client for it: kube's, with the service account's token and authorities, which it reads again as they
//! change.

use crate::config::Kubernetes;
use http::Uri;
use kube::{Client, Config};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a pod's environment says of the API.
const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";
/// What the DaemonSet tells of its node.
const NODE: &str = "NODE_NAME";
/// How long a connect, TLS included, may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a request may take to be written.
const WRITE: Duration = Duration::from_secs(10);

/// Why the API can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The node has no name.
    #[error(
        "`enroll` of [kubernetes] asks for the pods of this node, and its name isn't known: set {NODE} in the environment \
         (fieldRef: spec.nodeName), or `node` under [kubernetes]"
    )]
    NoNode,
    /// The name can't be one.
    #[error("`{node}` can't be a node's name")]
    Node {
        /// As given.
        node: String,
    },
    /// Nobody says where the API is.
    #[error(
        "{HOST} isn't in the environment, as it is in a pod: set `server` under [kubernetes] where Qbox runs outside of one"
    )]
    NoServer,
    /// The URL is none.
    #[error("`{url}` is not the URL of a Kubernetes API")]
    Server {
        /// As put together.
        url: String,
    },
    /// A file of the service account is missing.
    #[error(
        "can't read {}, which the Kubernetes API needs: has the pod automountServiceAccountToken: true?", path.display()
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// kube's own words.
    #[error("no client for the Kubernetes API can be made: {0}")]
    Client(String),
}

/// This node, and where to ask of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The node's name.
    pub node: String,
    server: Uri,
    ca_file: PathBuf,
    token_file: PathBuf,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node {} at {}", self.node, self.server)
    }
}

impl Place {
    /// As configured, or as the environment says.
    ///
    /// # Errors
    /// Neither does.
    pub fn new(
        settings: &Kubernetes,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, StartError> {
        let filled = |name| environment(name).filter(|value| !value.is_empty());
        let node = settings.node.clone().or_else(|| filled(NODE));
        let node = node.ok_or(StartError::NoNode)?;
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if node.is_empty() || node.len() > 253 || !node.bytes().all(sound) {
            return Err(StartError::Node { node });
        }
        let url = match &settings.server {
            Some(server) => server.clone(),
            None => {
                let host = filled(HOST).ok_or(StartError::NoServer)?;
                let port = filled(PORT).unwrap_or_else(|| "443".to_owned());
                match host.contains(':') {
                    true => format!("https://[{host}]:{port}"),
                    false => format!("https://{host}:{port}"),
                }
            }
        };
        let server = url.parse().map_err(|_| StartError::Server { url })?;
        Ok(Self {
            node,
            server,
            ca_file: settings.ca_file.clone(),
            token_file: settings.token_file.clone(),
        })
    }

    /// A client, inside a tokio runtime.
    pub(super) fn client(&self) -> Result<Client, StartError> {
        let readable = |path: &PathBuf| match std::fs::File::open(path) {
            Ok(_) => Ok(path.clone()),
            Err(source) => Err(StartError::File {
                path: path.clone(),
                source,
            }),
        };
        let mut config = Config::new(self.server.clone());
        config.connect_timeout = Some(CONNECT);
        config.write_timeout = Some(WRITE);
        // Whoever asks has a time-out of its own, and asks again by itself.
        config.read_timeout = None;
        config.default_retry = false;
        if self.server.scheme_str() == Some("https") {
            config.root_cert_file = Some(readable(&self.ca_file)?);
        }
        config.auth_info.token_file = Some(readable(&self.token_file)?.display().to_string());
        Client::try_from(config).map_err(|error| StartError::Client(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(settings: &Kubernetes, pairs: &[(&str, &str)]) -> Result<Place, StartError> {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect();
        Place::new(settings, |name| {
            let found = pairs.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn a_pods_environment_says_where_the_api_is() {
        let settings = Kubernetes::default();
        let all = [(NODE, "n1"), (HOST, "10.0.0.1"), (PORT, "6443")];
        let found = place(&settings, &all).unwrap();
        assert_eq!(format!("{found:?}"), "the node n1 at https://10.0.0.1:6443/");
        let six = place(&settings, &[(NODE, "n1"), (HOST, "fd00::1")]).unwrap();
        assert_eq!(six.server.host(), Some("[fd00::1]"));
        let lacks = |pairs: &[_]| place(&settings, pairs).unwrap_err().to_string();
        assert!(lacks(&all[1..]).contains("NODE_NAME"));
        assert!(lacks(&all[..1]).contains("KUBERNETES_SERVICE_HOST"));
        assert!(lacks(&[(NODE, "a,b=c"), all[1]]).contains("a,b=c"));
        let set = Kubernetes {
            node: Some("n2".to_owned()),
            server: Some("http://127.0.0.1:8001".to_owned()),
            ..Kubernetes::default()
        };
        let found = place(&set, &all).unwrap();
        assert_eq!(format!("{found:?}"), "the node n2 at http://127.0.0.1:8001/");
    }
}
