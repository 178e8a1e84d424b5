//! What is answered to a request.

use serde_json::Value;

use super::watch::Plan;

pub enum Answer {
    Whole(Reply),
    Watch(Plan),
}

pub struct Reply {
    pub code: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
    /// In seconds.
    pub retry_after: Option<u64>,
}

impl Reply {
    pub fn json(code: u16, value: &Value) -> Self {
        Self { code, content_type: "application/json", body: value.to_string().into_bytes(), retry_after: None }
    }

    /// How a real server answers a path that is no resource's.
    pub fn no_such_path() -> Self {
        Self {
            code: 404,
            content_type: "text/plain; charset=utf-8",
            body: b"404 page not found\n".to_vec(),
            retry_after: None,
        }
    }

    pub fn garbage() -> Self {
        Self {
            code: 200,
            content_type: "application/json",
            body: br#"{"kind": "Node", "metadata": {"na"#.to_vec(),
            retry_after: None,
        }
    }
}
