//! Any text as a configuration of the original Qbox: sagas whose files read back as what they say, or findings.

use crate::Target;
use qbox::config::{SourceFile, load_saga};
use qbox::import::import;
use std::sync::Arc;

pub(crate) const TARGET: Target = Target {
    name: "original",
    run,
    also: &[],
};

fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let file = SourceFile {
        name: "fuzz.yaml".to_owned(),
        text: text.to_owned(),
    };
    match import(&Arc::new(file)) {
        Ok(sagas) => {
            for saga in sagas {
                let read = load_saga(&saga.text, "fuzz.toml")
                    .unwrap_or_else(|found| panic!("{found:#?}\n{}", saga.text));
                assert_eq!(read.0, saga.plan);
            }
        }
        Err(found) => {
            assert!(!found.is_empty(), "refused without a finding");
            for finding in found {
                let _ = finding.render(false);
            }
        }
    }
}
