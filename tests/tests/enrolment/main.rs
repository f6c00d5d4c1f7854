//! Which pods are captured, as the Kubernetes API says: what the API tells and how it fails, followed by the client alone
//! (`follow`); and pods on a node, whose labels change while a real Qbox runs (`node`).

mod follow;
mod node;
