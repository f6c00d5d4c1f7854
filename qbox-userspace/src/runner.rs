//! Owns the machines: carries out their commands, feeds them outcomes and time.
