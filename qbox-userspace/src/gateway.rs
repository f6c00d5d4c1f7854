//! The only place where HTTP meets sagas: is this request a trigger, and what is the answer.
