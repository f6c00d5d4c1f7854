//! The page's files: small, whole, and nothing of others' text is ever made markup.

use super::super::tests::{get_over_tcp, node, start, start_with};
use super::*;
use crate::runner::testing::runner;
use sha2::{Digest, Sha256};
use std::io::Write;

/// As their makers publish them (assets/vendor/README.md).
const VENDORED: [(&str, &str); 4] = [
    (
        "/assets/vendor/dagre.js",
        "54a503e346f93ca0bb10abe7999587e037262935687aca45eb4e4b0f64bbb578",
    ),
    (
        "/assets/vendor/preact.js",
        "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7",
    ),
    (
        "/assets/vendor/uplot.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
    (
        "/assets/vendor/uplot.js",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
];

fn own() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = FILES.into_iter().filter(|(path, ..)| !path.contains("/vendor/"));
    own.map(|(path, _, text)| (path, text))
}

#[test]
fn all_of_it_is_at_most_150_kb_compressed() {
    let packed = FILES.iter().map(|(_, _, text)| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap().len()
    });
    let bytes: usize = packed.sum();
    assert!(bytes <= 150 * 1000, "{bytes} bytes");
}

#[test]
fn the_libraries_are_as_they_were_published() {
    let vendored = FILES.iter().filter(|(path, ..)| path.contains("/vendor/"));
    let digests = vendored.map(|(path, _, text)| {
        let digest = Sha256::digest(text.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        (*path, digest)
    });
    let expected = VENDORED.map(|(path, digest)| (path, digest.to_owned()));
    assert_eq!(digests.collect::<Vec<_>>(), expected);
}

#[test]
fn what_a_file_asks_for_is_there_and_nothing_comes_from_elsewhere() {
    for (path, text) in own() {
        for quoted in text.split(['"', '\'', '`', '(', ')']) {
            if quoted.starts_with("/assets/") {
                assert!(is_page(quoted), "{path} asks for {quoted}");
            }
            // The name of the drawing language is no address that is asked.
            let elsewhere =
                quoted.starts_with("http") && quoted.contains("://") && !quoted.contains("www.w3.org");
            assert!(
                !elsewhere || quoted.starts_with("http://${"),
                "{path} names {quoted}"
            );
        }
    }
}

#[test]
fn no_text_is_made_markup_or_code() {
    for (path, text) in own() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
            "onclick=\"",
        ] {
            assert!(!text.contains(way), "{path} uses {way}");
        }
    }
}

#[tokio::test]
async fn a_browser_gets_each_file_with_its_policy() {
    let (admin, _folder) = start(&runner(), node());
    for (path, kind, text) in FILES {
        let (status, head, body) = get_over_tcp(&admin, path);
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self';"),
            "{head}"
        );
        assert_eq!(body, text);
    }
}

#[tokio::test]
async fn the_page_needs_no_token_and_what_it_draws_does() {
    let (admin, _folder) = start_with(&runner(), node(), Some("s3cret"));
    assert_eq!(get_over_tcp(&admin, "/").0, 200);
    assert_eq!(get_over_tcp(&admin, "/assets/app.js").0, 200);
    for path in [
        "/api/v1/live",
        "/api/v1/sagas",
        "/assets/",
        "/assets/../api/v1/sagas",
    ] {
        assert_eq!(get_over_tcp(&admin, path).0, 401, "{path}");
    }
}
