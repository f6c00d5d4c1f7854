//! Pods, participants and drivers for the end-to-end suites.
