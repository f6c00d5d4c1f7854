//! Capture: eBPF programs, pods and their listeners, the original destination. Knows no saga and no HTTP.
