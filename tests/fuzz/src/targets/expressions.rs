//! Any text as a template, in each place: read, or refused with a place within the text; what was read prints as what reads back as
//! the same.

use crate::Target;
use qbox::saga::{FieldPath, Place, Scope, StepId, Template};

pub(crate) const TARGET: Target = Target {
    name: "expressions",
    run,
    also: &[],
};

fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let steps = ["hotel".to_owned(), "flight".to_owned()];
    let own = StepId(1);
    for place in [
        Place::Trigger,
        Place::Request(own),
        Place::Compensation(own),
        Place::Probe(own),
        Place::Match(own),
        Place::Reply,
    ] {
        let scope = Scope { steps: &steps, place };
        match Template::parse(text, &scope) {
            Ok(template) => {
                let printed = template.to_string();
                assert_eq!(Template::parse(&printed, &scope), Ok(template), "{printed}");
            }
            Err(error) => assert!(
                error.range.start <= error.range.end && error.range.end <= text.len(),
                "{error:?}"
            ),
        }
    }
    match FieldPath::parse(text) {
        Ok(path) => assert_eq!(FieldPath::parse(&path.to_string()), Ok(path)),
        Err(error) => assert!(
            error.range.start <= error.range.end && error.range.end <= text.len(),
            "{error:?}"
        ),
    }
}
