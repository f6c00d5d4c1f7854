//! How bytes stand in the journal's JSON: as text where they are UTF-8, so that people can read a history, and else as an
//! array of numbers. Both are read back to the very bytes. For `#[serde(with = …)]`.

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.serialize_bytes(bytes),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_any(Octets)
}

struct Octets;

impl<'de> Visitor<'de> for Octets {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or an array of bytes")
    }

    fn visit_str<E>(self, text: &str) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn visit_string<E>(self, text: String) -> Result<Bytes, E> {
        Ok(text.into())
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = array.next_element::<u8>()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

/// The same for the values of header fields.
pub(super) mod fields {
    use super::{Bytes, Deserialize, Deserializer, Serialize, Serializer};
    use smol_str::SmolStr;

    #[derive(Deserialize)]
    struct Value(#[serde(with = "super")] Bytes);

    #[derive(Serialize)]
    struct Shown<'a>(#[serde(serialize_with = "super::serialize")] &'a Bytes);

    pub(in crate::saga) fn serialize<S: Serializer>(
        fields: &[(SmolStr, Bytes)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(fields.iter().map(|(name, value)| (name, Shown(value))))
    }

    pub(in crate::saga) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(SmolStr, Bytes)>, D::Error> {
        let fields = Vec::<(SmolStr, Value)>::deserialize(deserializer)?;
        Ok(fields
            .into_iter()
            .map(|(name, Value(value))| (name, value))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use crate::saga::{Headers, Response};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn response(value: Vec<u8>, body: Vec<u8>) -> Response {
        Response {
            status: 200,
            headers: Headers(vec![("X-A".into(), Bytes::from(value))]),
            body: body.into(),
            truncated: false,
        }
    }

    #[test]
    fn text_stands_as_text() {
        let json = serde_json::to_string(&response(b"a\"b".to_vec(), b"{}".to_vec())).unwrap();
        assert_eq!(json, r#"{"status":200,"headers":[["X-A","a\"b"]],"body":"{}"}"#);
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(value: Vec<u8>, body: Vec<u8>, text: String) {
            for body in [body, text.into_bytes()] {
                let response = response(value.clone(), body);
                let json = serde_json::to_string(&response).unwrap();
                prop_assert_eq!(serde_json::from_str::<Response>(&json).unwrap(), response);
            }
        }
    }
}
