//! The saga files of the shapes: for each way of keeping a journal one of the trigger that begins it all, and one for each service in the
//! middle.

use super::shape::Shape;
use crate::world::PORT;
use std::fmt::Write as _;

/// The trigger's service, as the sagas name it. Nothing of a saga reaches it.
pub(super) const TRIPS: &str = "trips.default.svc";

/// The name of a service below, which is its pod's.
pub(super) fn below(number: usize) -> String {
    format!("service-{number}")
}

/// The name of a service in the middle.
pub(super) fn middle(number: usize) -> String {
    format!("middle-{number}")
}

/// The sagas of one shape.
pub(super) fn of(shape: Shape, durability: &str) -> Vec<String> {
    let key = shape.key();
    let start = format!("http://{TRIPS}:{PORT}/{durability}/{key}/{{trip}}");
    let name = format!("{durability}-{key}");
    if shape.each == 0 {
        let steps = (0..shape.calls).map(|number| (below(number), shape.pace().to_owned()));
        return vec![saga(&name, durability, &start, steps)];
    }
    let calls = (0..shape.calls).map(|number| (middle(number), format!("{durability}/{key}")));
    let mut all = vec![saga(&name, durability, &start, calls)];
    for number in 0..shape.calls {
        let own = middle(number);
        let url = format!("http://{own}.default.svc:{PORT}/{durability}/{key}/of-{number}/{{trip}}");
        let first = number * shape.each;
        let steps = (first..first + shape.each).map(|number| (below(number), shape.pace().to_owned()));
        all.push(saga(&format!("{name}-{own}"), durability, &url, steps));
    }
    all
}

/// One saga whose steps are sent at once: each is a service and the path before the trip.
pub(super) fn saga(
    name: &str,
    durability: &str,
    trigger: &str,
    steps: impl Iterator<Item = (String, String)>,
) -> String {
    let mut text = format!(
        "name = \"{name}\"\ndurability = \"{durability}\"\n[trigger]\nmethod = \"POST\"\nurl = \"{trigger}\"\n"
    );
    for (number, (service, path)) in steps.enumerate() {
        let url = format!("http://{service}.default.svc:{PORT}/{path}/${{trigger.path.trip}}");
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "[[step]]\nname = \"s{number}\"\n\
             request = {{ method = \"PUT\", url = \"{url}\", json = {{ trip = \"${{trigger.path.trip}}\" }} }}\n\
             [[step.compensate]]\nrequest = {{ method = \"DELETE\", url = \"{url}\" }}\n"
        );
    }
    text
}
