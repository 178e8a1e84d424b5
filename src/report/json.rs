//! stub
/// stub
pub fn to_json(r: &super::Report) -> String {
    let mut s = serde_json::to_string_pretty(r).unwrap_or_default();
    s.push(10 as char);
    s
}
