//! Messages of DNS (RFC 1035, section 4): a query for one address, and whether a datagram answers it.
//!
//! Of an answer no record is read: that it came, and with which code, is all that is asked.

/// A header is as long.
const HEADER: usize = 12;
/// Answers that are longer than this are cut by the server: EDNS is not asked for.
pub const MAX_MESSAGE: usize = 512;
/// Characters of a name, and of one label.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;
/// Recursion desired: the one flag of a query.
const RECURSION: [u8; 2] = [1, 0];
/// Type A, class IN.
const TYPE_AND_CLASS: [u8; 4] = [0, 1, 0, 1];

/// A query for an IPv4 address of a name; `None` where that is no name of letters, digits, dashes and underscores.
#[must_use]
pub fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    let mut message = Vec::with_capacity(HEADER + MAX_NAME + 6);
    message.extend(id.to_be_bytes());
    message.extend(RECURSION);
    // One question, and nothing else.
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let length = u8::try_from(label.len()).ok().filter(|_| is_plain && (1..=MAX_LABEL).contains(&label.len()))?;
        message.push(length);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(TYPE_AND_CLASS);
    Some(message)
}

/// What a server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 0: there is such a name; 3: there is none; 2: the server failed.
    pub code: u8,
    /// Whether it was cut, to be asked for again by TCP.
    pub is_cut: bool,
}

impl Reply {
    /// Whether the server did its work: also where the name does not exist.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self.code, 0 | 3)
    }
}

/// What a datagram answers to a query; `None` where it answers another one, or none.
#[must_use]
pub fn reply_to(query: &[u8], datagram: &[u8]) -> Option<Reply> {
    let (header, rest) = datagram.split_first_chunk::<HEADER>()?;
    let [id_high, id_low, flags, codes, questions_high, questions_low, ..] = *header;
    let is_reply = query.get(..2)? == [id_high, id_low] && flags >> 7 == 1 && flags >> 3 & 0b1111 == 0;
    if !is_reply {
        return None;
    }
    let code = codes & 0b1111;
    let asked = query.get(HEADER..)?;
    match u16::from_be_bytes([questions_high, questions_low]) {
        1 => rest.get(..asked.len()).filter(|question| question.eq_ignore_ascii_case(asked)).map(drop)?,
        // A server that could not read the query may leave the question out.
        0 if code != 0 => {}
        _ => return None,
    }
    Some(Reply { code, is_cut: flags & 0b10 != 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "kubernetes.default.svc.cluster.local";

    fn reply(query: &[u8], flags: [u8; 2]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply.splice(2..4, flags);
        reply
    }

    #[test]
    fn a_query_is_as_the_standard_has_it() {
        let message = query(0x1234, "a.bc.").unwrap();
        assert_eq!(message, [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
        assert_eq!(query(0, NAME), query(0, &format!("{NAME}.")));
        let long = "a".repeat(64);
        for bad in ["", ".", "a..b", "a b", "ä", &long, &"a.".repeat(130)] {
            assert_eq!(query(0, bad), None, "{bad}");
        }
    }

    #[test]
    fn only_an_answer_to_the_query_is_one() {
        let asked = query(7, NAME).unwrap();
        let ok = Reply { code: 0, is_cut: false };
        assert_eq!(reply_to(&asked, &reply(&asked, [0x81, 0x80])), Some(ok));
        assert!(ok.is_answer());
        let upper = reply(&asked, [0x81, 0x80]).to_ascii_uppercase();
        assert_eq!(reply_to(&asked, &upper), Some(ok), "a server may change the case");
        let failed = reply_to(&asked, &reply(&asked, [0x81, 0x82])).unwrap();
        assert!(failed.code == 2 && !failed.is_answer());
        assert_eq!(reply_to(&asked, &reply(&asked, [0x83, 0x83])), Some(Reply { code: 3, is_cut: true }));
        assert_eq!(reply_to(&asked, &asked), None, "a query is no answer");
        let other = query(8, NAME).unwrap();
        assert_eq!(reply_to(&asked, &reply(&other, [0x81, 0x80])), None, "another number");
        let other = query(7, "kubernetes.default.svc.cluster.locax").unwrap();
        assert_eq!(reply_to(&asked, &reply(&other, [0x81, 0x80])), None, "another name");
        let whole = reply(&asked, [0x81, 0x80]);
        assert_eq!(reply_to(&asked, &whole[..whole.len() - 1]), None, "cut off");
        let mut bare = whole[..12].to_vec();
        bare[5] = 0;
        assert_eq!(reply_to(&asked, &bare), None);
        bare[3] = 0x81;
        assert_eq!(reply_to(&asked, &bare).map(|reply| reply.code), Some(1));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(query: Vec<u8>, datagram: Vec<u8>) {
            let _ = reply_to(&query, &datagram);
        }

        #[test]
        fn any_name_is_asked_for_and_its_echo_is_an_answer(
            id: u16, name in "[a-z0-9_-]{1,20}(\\.[a-zA-Z0-9]{1,9}){0,5}", code in 0u8..16, rest: Vec<u8>
        ) {
            let asked = query(id, &name).unwrap();
            let mut datagram = reply(&asked, [0x81, 0x80 | code]);
            datagram.extend(rest);
            prop_assert_eq!(reply_to(&asked, &datagram), Some(Reply { code, is_cut: false }));
            // Any other number is of another query.
            datagram[0] ^= 1;
            prop_assert_eq!(reply_to(&asked, &datagram), None);
        }
    }
}
