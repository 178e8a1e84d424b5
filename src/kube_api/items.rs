//! A list's answer, item by item: a page of fifty pods may hold fifty times what etcd takes of one.

use super::ApiError;
use super::head::{HEAD_BYTES, MAX_OBJECT_BYTES, Piece};
use crate::facts::Cause;

/// What a list holds beside its items.
const MAX_REST_BYTES: usize = 256 << 10;

/// Takes the items out of a list that comes in pieces of this size, and returns the list without them.
///
/// # Errors
/// When it is no list.
pub fn take_apart(
    list: &[u8],
    piece: std::num::NonZeroUsize,
    mut on_item: impl FnMut(Piece<'_>),
) -> Result<Vec<u8>, ApiError> {
    let mut items = Items::of_list();
    for piece in list.chunks(piece.get()) {
        items.take("a list", piece, |item| {
            on_item(item);
            Ok(())
        })?;
    }
    Ok(items.into_rest())
}

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
pub struct Items {
    /// The key whose array they are.
    key: &'static [u8],
    /// The largest that is kept.
    most: usize,
    place: Place,
    /// Objects and arrays that are open, within the item or the list.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The string that ended last, and whether it was a key of the list itself.
    string: Vec<u8>,
    is_items: bool,
    item: Vec<u8>,
    /// Whether the item is too large, and only its beginning is kept.
    is_too_large: bool,
    /// The list without its items.
    rest: Vec<u8>,
}

impl Items {
    /// Those of a list of the API server.
    pub(super) fn of_list() -> Self {
        Self::of("items", MAX_OBJECT_BYTES)
    }

    /// The objects in the array with this key, each of so many bytes at most.
    #[must_use]
    pub fn of(key: &'static str, most: usize) -> Self {
        Self {
            key: key.as_bytes(),
            most,
            place: Place::List,
            depth: 0,
            in_string: false,
            escaped: false,
            string: Vec::new(),
            is_items: false,
            item: Vec::new(),
            is_too_large: false,
            rest: Vec::new(),
        }
    }

    /// Takes the next piece, and hands on each item that it ends.
    ///
    /// # Errors
    /// When it is no such list, when what is beside the items is too long, and what `on_item` says.
    pub fn take(
        &mut self,
        name: &str,
        piece: &[u8],
        mut on_item: impl FnMut(Piece<'_>) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        for byte in piece {
            self.byte(name, *byte)?;
            if self.place == Place::Item && self.depth == 0 {
                let is_too_large = std::mem::take(&mut self.is_too_large);
                on_item(if is_too_large { Piece::TooLarge(&self.item) } else { Piece::Whole(&self.item) })?;
                // The room of a large one is not kept for the small ones.
                self.item = Vec::new();
                self.place = Place::Between;
            }
        }
        Ok(())
    }

    /// The list without its items.
    #[must_use]
    pub fn into_rest(self) -> Vec<u8> {
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
        match self.place {
            Place::Item => self.keep_of_item(byte),
            Place::List | Place::Between => {
                if self.rest.len() >= MAX_REST_BYTES {
                    let why = format!("{name}: a list with more than {MAX_REST_BYTES} bytes outside its items");
                    return Err(ApiError::new(Cause::TooLarge, why));
                }
                self.rest.push(byte);
            }
        }
        self.follow(byte);
        Ok(())
    }

    fn keep_of_item(&mut self, byte: u8) {
        if self.item.len() >= self.most {
            self.is_too_large = true;
            self.item.truncate(HEAD_BYTES);
            self.item.shrink_to_fit();
        }
        if !self.is_too_large {
            self.item.push(byte);
        }
    }

    fn follow(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            if self.in_string && self.string.len() <= self.key.len() {
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
            self.is_items = byte == b':' && self.place == Place::List && self.depth == 1 && self.string == self.key;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn split(text: &[u8], size: usize) -> Result<(Vec<Value>, Value), ApiError> {
        let (mut items, mut all) = (Items::of_list(), Vec::new());
        for piece in text.chunks(size) {
            items.take("GET /x", piece, |item| {
                all.push(match item {
                    Piece::Whole(item) => serde_json::from_slice(item).unwrap(),
                    Piece::TooLarge(head) => json!({"head": head.len()}),
                });
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
    fn another_key_has_items_of_its_own_size() {
        let (mut items, mut all) = (Items::of("pods", 9), Vec::new());
        let text = br#"{"items":[{"a":1}],"pods":[{"a":1},{"a":"too long"},{"b":2}]}"#;
        let on_item = |item: Piece<'_>| {
            all.push(item == Piece::Whole(b"{\"a\":1}"));
            Ok(())
        };
        items.take("x", text, on_item).unwrap();
        assert_eq!(all, [true, false, false]);
        assert_eq!(items.into_rest(), br#"{"items":[{"a":1}],"pods":[]}"#);
    }

    #[test]
    fn of_an_item_that_is_too_large_the_beginning_is_kept_and_others_are_read() {
        let large = [br#"{"items":[{"a":1},{"a":""#.as_slice(), &vec![b'{'; MAX_OBJECT_BYTES * 2], br#""},{"a":2}]}"#];
        let (items, rest) = split(&large.concat(), 4096).unwrap();
        assert_eq!(items, [json!({"a": 1}), json!({"head": HEAD_BYTES}), json!({"a": 2})]);
        assert_eq!(rest, json!({"items": []}));
        let mut items = Items::of_list();
        items.take("GET /x", &large[..2].concat(), |_| Ok(())).unwrap();
        assert!(items.item.capacity() < MAX_OBJECT_BYTES, "one without an end takes no memory");
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
            let _ = Items::of_list().take("x", &bytes, |_| Ok(()));
        }
    }
}
