//! Tests of the machine: single cases, then any plan in any world.

mod cases;
mod operator;
mod recovery;
mod undo;
mod world;
