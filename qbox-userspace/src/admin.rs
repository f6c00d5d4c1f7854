//! The admin API: health, pods, sagas. Its own runtime; knows nothing of the data path's internals.
