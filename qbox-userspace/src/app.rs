//! Puts the rooms together: the one file that knows every module.
