//! Tests of the machine: single cases, then any plan in any world.

mod any;
mod cases;
mod late;
mod ledger;
mod limits;
mod messages;
mod operator;
mod patience;
mod recovery;
mod undo;
mod world;
