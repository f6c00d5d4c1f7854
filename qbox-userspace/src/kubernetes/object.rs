//! The API's objects, as far as they are read here: the rest of each is passed over without being kept.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Pod {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: PodSpec,
}

/// What is to become of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    /// It is in the node's network namespace.
    #[serde(default)]
    pub(super) host_network: bool,
}

/// A namespace.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Namespace {
    #[serde(default)]
    pub(super) metadata: Metadata,
}

/// What every object has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    /// May be `null`.
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// May be `null`.
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

impl Metadata {
    /// An annotation.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// What can be listed and watched.
pub(super) trait Object: Clone + serde::de::DeserializeOwned + Send + Sync + 'static {
    fn metadata(&self) -> &Metadata;
}

impl Object for Pod {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Object for Namespace {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

/// A list of them.
#[derive(Debug, Deserialize)]
pub(super) struct List<K> {
    #[serde(default)]
    pub(super) metadata: ListMetadata,
    /// May be `null`.
    pub(super) items: Option<Vec<K>>,
}

/// What a list has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    /// From which a watch goes on.
    #[serde(default)]
    pub(super) resource_version: String,
}
