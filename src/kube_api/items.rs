//! A list's answer, item by item: a page of fifty pods may hold fifty times what etcd takes of one.

use super::ApiError;
use crate::facts::Cause;

/// etcd takes no object above 1.5 MiB; the JSON of one that is all `<` takes six times that.
const MAX_ITEM_BYTES: usize = 12 << 20;
/// What a list holds beside its items.
const MAX_REST_BYTES: usize = 256 << 10;

/// Where in the answer the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the list itself.
    List,
    /// Between its items.
    Between,
    /// In an item.
    Item,
}

/// Takes the items out of a list, whatever pieces it comes in.
#[derive(Debug)]
pub(super) struct Items {
    place: Place,
    /// Objects and arrays that are open, within the item or the list.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The string that ended last, and whether it was a key of the list itself.
    string: Vec<u8>,
    is_items: bool,
    item: Vec<u8>,
    /// The list without its items.
    rest: Vec<u8>,
}

/// The longest key that is compared.
const KEY: &[u8] = b"items";

impl Items {
    pub(super) fn new() -> Self {
        Self {
            place: Place::List,
            depth: 0,
            in_string: false,
            escaped: false,
            string: Vec::new(),
            is_items: false,
            item: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// Takes the next piece, and hands on each item that it ends.
    pub(super) fn take(
        &mut self,
        name: &str,
        piece: &[u8],
        mut on_item: impl FnMut(&[u8]) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        for byte in piece {
            self.byte(name, *byte)?;
            if self.place == Place::Item && self.depth == 0 {
                on_item(&self.item)?;
                // The room of a large one is not kept for the small ones.
                self.item = Vec::new();
                self.place = Place::Between;
            }
        }
        Ok(())
    }

    /// The list without its items.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.rest
    }

    fn byte(&mut self, name: &str, byte: u8) -> Result<(), ApiError> {
        match self.place {
            Place::Between => match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => return Ok(()),
                b']' => {
                    self.place = Place::List;
                    // That of the list, and its array.
                    self.depth = 2;
                }
                b'{' => self.place = Place::Item,
                _ => return Err(ApiError::malformed(name, "expected an object among the items")),
            },
            Place::List | Place::Item => {}
        }
        let (kept, most) = match self.place {
            Place::Item => (&mut self.item, MAX_ITEM_BYTES),
            Place::List | Place::Between => (&mut self.rest, MAX_REST_BYTES),
        };
        if kept.len() >= most {
            return Err(ApiError::new(
                Cause::TooLarge,
                format!("{name}: a part of the list of more than {most} bytes"),
            ));
        }
        kept.push(byte);
        self.follow(byte);
        Ok(())
    }

    fn follow(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            if self.in_string && self.string.len() <= KEY.len() {
                self.string.push(byte);
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.string.clear();
            }
            b'{' => self.depth = self.depth.saturating_add(1),
            b'[' if self.is_items => {
                self.place = Place::Between;
                self.depth = 0;
            }
            b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            self.is_items = byte == b':' && self.place == Place::List && self.depth == 1 && self.string == KEY;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn split(text: &[u8], size: usize) -> Result<(Vec<Value>, Value), ApiError> {
        let (mut items, mut all) = (Items::new(), Vec::new());
        for piece in text.chunks(size) {
            items.take("GET /x", piece, |item| {
                all.push(serde_json::from_slice(item).unwrap());
                Ok(())
            })?;
        }
        let rest = serde_json::from_slice(&items.into_rest()).unwrap();
        Ok((all, rest))
    }

    #[test]
    fn items_are_those_of_the_list_itself() {
        let text = br#"{"kind":"PodList","a":{"items":[1]},"b":["items",{"items":[]}],
            "metadata":{"resourceVersion":"7","x":"\"items\":[{"},"items" : [ {"items":[{"a":1}],"s":"]}\"{"} , {} ],"tail":[[1]]}"#;
        for size in [1, 2, 7, 1000] {
            let (items, rest) = split(text, size).unwrap();
            assert_eq!(items, [json!({"items":[{"a":1}],"s":"]}\"{"}), json!({})]);
            assert_eq!((&rest["items"], &rest["tail"]), (&json!([]), &json!([[1]])));
            assert_eq!((&rest["metadata"]["resourceVersion"], &rest["a"]), (&json!("7"), &json!({"items":[1]})));
        }
        assert_eq!(split(br#"{"items":null}"#, 3).unwrap(), (vec![], json!({"items": null})));
        assert_eq!(split(br#"{"items":[1]}"#, 3).unwrap_err().cause, Cause::Malformed);
    }

    #[test]
    fn an_item_without_end_is_refused() {
        let text = [br#"{"items":[{"a":""#.as_slice(), &vec![b'x'; MAX_ITEM_BYTES + 1]].concat();
        assert_eq!(split(&text, 4096).unwrap_err().cause, Cause::TooLarge);
        let text = [br#"{"metadata":{"a":""#.as_slice(), &vec![b'x'; MAX_REST_BYTES + 1]].concat();
        assert_eq!(split(&text, 4096).unwrap_err().cause, Cause::TooLarge);
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(strings in prop::collection::vec("[a-z\"\\\\{}\\[\\]:, ]{0,12}", 0..6), size in 1_usize..40) {
            let expected: Vec<Value> = strings.iter().map(|text| json!({"s": text, text: [text]})).collect();
            let list = json!({"items": expected, "metadata": {"continue": strings.first()}});
            let (items, rest) = split(list.to_string().as_bytes(), size).unwrap();
            prop_assert_eq!(items, expected);
            prop_assert_eq!(&rest["metadata"], &list["metadata"]);
        }

        #[test]
        fn no_bytes_upset_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Items::new().take("x", &bytes, |_| Ok(()));
        }
    }
}
