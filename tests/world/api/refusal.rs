//! Refusals, in the form of a v1 Status.

use serde_json::{Value, json};

use super::answer::{Answer, Reply};
use super::resource::Resource;
use super::store::TooOld;

/// A failed request.
#[derive(Debug)]
pub struct Refusal {
    pub code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

impl Refusal {
    fn new(code: u16, message: &str) -> Self {
        Self { code, reason: reason(code), message: message.to_owned(), details: None }
    }

    /// What a fault makes up.
    pub fn of_code(code: u16) -> Self {
        let refusal = Self::new(code, &format!("a fault of the test: {code}"));
        match code {
            429 | 503 => Self { details: Some(json!({"retryAfterSeconds": 1})), ..refusal },
            _ => refusal,
        }
    }

    pub fn bad_request(message: &str) -> Self {
        Self::new(400, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    pub fn forbidden(resource: &Resource, name: &str) -> Self {
        let what = qualified(resource);
        let message = format!("{what} {name:?} is forbidden: this token's owner may do nothing");
        Self { details: Some(details(resource, name)), ..Self::new(403, &message) }
    }

    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(resource));
        Self { details: Some(details(resource, name)), ..Self::new(404, &message) }
    }

    pub fn no_namespace(name: &str) -> Self {
        let details = json!({"name": name, "kind": "namespaces"});
        Self { details: Some(details), ..Self::new(404, &format!("namespaces {name:?} not found")) }
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(resource));
        Self { reason: "AlreadyExists", details: Some(details(resource, name)), ..Self::new(409, &message) }
    }

    pub fn conflict(resource: &Resource, name: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: the object has been modified; please apply your changes to \
             the latest version and try again",
            qualified(resource)
        );
        Self { details: Some(details(resource, name)), ..Self::new(409, &message) }
    }

    pub fn too_old(why: &TooOld) -> Self {
        Self::new(410, &format!("too old resource version: {} ({})", why.asked, why.oldest))
    }

    /// A version that is yet to come. A real server waits for it some seconds first.
    pub fn too_new(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let causes = [json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"})];
        let details = json!({"causes": causes, "retryAfterSeconds": 1});
        Self { details: Some(details), ..Self::new(504, &message) }
    }

    pub fn media_type() -> Self {
        Self::new(415, "the body of the request was in an unknown format")
    }

    /// `causes`: a field, and what is wrong with it.
    pub fn invalid(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Self {
        let listed: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let message = format!("{kind} {name:?} is invalid: {}", listed.join(", "));
        let causes: Vec<Value> = causes.iter().map(Cause::json).collect();
        let details = json!({"name": name, "group": group, "kind": kind, "causes": causes});
        Self { details: Some(details), ..Self::new(422, &message) }
    }

    pub fn internal(message: &str) -> Self {
        Self::new(500, message)
    }

    /// As a real server says of a strategic merge that it cannot do.
    pub fn unmergeable(message: &str) -> Self {
        Self { reason: "", ..Self::new(500, message) }
    }

    pub fn not_served(what: &str) -> Self {
        Self::new(501, &format!("tests/world/api does not serve {what}: add it, and a line to its contract"))
    }

    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let retry = refusal.details.as_ref().and_then(|details| details["retryAfterSeconds"].as_u64());
        Self::Whole(Reply { retry_after: retry, ..Reply::json(refusal.code, &refusal.status()) })
    }
}

/// What is wrong with a field.
#[derive(Debug)]
pub struct Cause {
    pub reason: &'static str,
    pub field: &'static str,
    pub message: String,
}

impl Cause {
    pub fn required(field: &'static str) -> Self {
        Self { reason: "FieldValueRequired", field, message: "Required value".to_owned() }
    }

    pub fn invalid(field: &'static str, why: &str) -> Self {
        Self { reason: "FieldValueInvalid", field, message: format!("Invalid value: {why}") }
    }

    pub fn forbidden(field: &'static str, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", field, message: format!("Forbidden: {why}") }
    }

    fn json(&self) -> Value {
        json!({"reason": self.reason, "field": self.field, "message": self.message})
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    }
}

fn qualified(resource: &Resource) -> String {
    match resource.group {
        "" => resource.plural.to_owned(),
        group => format!("{}.{group}", resource.plural),
    }
}

fn details(resource: &Resource, name: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    details
}
