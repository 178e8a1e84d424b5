//! stub
/// stub
pub fn html(_: &super::Report) -> String {
    String::new()
}
