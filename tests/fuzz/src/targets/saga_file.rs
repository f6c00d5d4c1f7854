//! Any text as a saga file: a plan, or findings whose places are in the text. A plan that was read prints as a file that reads
//! back as the same, can be rehearsed, and is drawn.

use crate::Target;
use qbox::config::{load_saga, print_saga};
use qbox::plan::{Prospect, mermaid, svg};
use std::sync::Arc;

pub(crate) const TARGET: Target = Target {
    name: "saga_file",
    run,
    also: &["config/invalid", "config/examples", "tests/src/chaos/sagas"],
};

/// A rehearsal plays every step's failure: enough for what can go wrong.
const MOST_STEPS: usize = 8;

fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match load_saga(text, "fuzz.toml") {
        Ok((plan, _)) => {
            let printed = print_saga(&plan, &[]);
            let (again, _) =
                load_saga(&printed, "printed.toml").unwrap_or_else(|found| panic!("{found:#?}\n{printed}"));
            assert_eq!(again, plan, "{printed}");
            let _ = (mermaid(&plan), svg(&plan));
            if plan.steps.len() <= MOST_STEPS {
                let prospect = Prospect::new(Arc::new(plan), None, &[], None);
                let _ = (prospect.text(), prospect.to_json());
            }
        }
        Err(found) => {
            assert!(!found.is_empty(), "refused without a finding");
            for finding in found {
                assert!(
                    finding.span.as_ref().is_none_or(|span| span.start <= span.end),
                    "{finding:?}"
                );
                let _ = finding.render(false);
            }
        }
    }
}
