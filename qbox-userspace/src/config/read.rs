//! Files to text: bounded, UTF-8. What can't be read is a finding, not an error of its own.

use super::diagnostic::{Code, Diagnostic, SourceFile};
use super::walk::Sink;
use std::path::Path;
use std::sync::Arc;

/// The longest file that is read: 1 MiB. A saga file has some hundred lines.
const LONGEST_FILE: u64 = 1 << 20;

/// Reads a file whole, up to `LONGEST_FILE`; what can't be read is a finding.
///
/// # Errors
/// It can't be read, is too large, or is no UTF-8.
pub fn file(path: &Path) -> Result<Arc<SourceFile>, Box<Diagnostic>> {
    use std::io::Read as _;
    let name = path.display().to_string();
    let whole = |code, text: String, span, message, help: &str| {
        let file = Arc::new(SourceFile {
            name: name.clone(),
            text,
        });
        let mut diagnostic = Sink::new(file).draft(code, 0..0, message);
        diagnostic.span = span;
        diagnostic.help = help.to_owned();
        Box::new(diagnostic)
    };
    let unreadable = |error: std::io::Error| {
        let message = format!("can't read `{name}`: {error}");
        whole(
            Code::Unreadable,
            String::new(),
            None,
            message,
            "give the path of a file that Qbox may read",
        )
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST_FILE {
        let message = format!("`{name}` is larger than 1 MiB");
        return Err(whole(
            Code::TooLarge,
            String::new(),
            None,
            message,
            "one saga a file; take out what is not needed",
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Arc::new(SourceFile { name, text })),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let message = format!("the byte 0x{byte:02x} is not UTF-8");
            // U+FFFD stands for the byte in the lossy text; all before it is as in the file.
            let span = Some(at..at + '\u{fffd}'.len_utf8());
            Err(whole(
                Code::NotUtf8,
                text,
                span,
                message,
                "save the file as UTF-8",
            ))
        }
    }
}
