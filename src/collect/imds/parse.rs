//! What the paths of IMDS answer. Texts are bounded, reasons quote nothing.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::facts::{
    AutoscalingTarget, Cause, ImdsInstance, LifeCycle, Maintenance, Part, RoleCredentials, SpotAction, SpotNotice,
    Unknown,
};

/// An instance has at most a few scheduled events.
const MAX_EVENTS: usize = 100;
/// The longest name or code that is kept.
const MAX_TEXT: usize = 128;

/// Reads `dynamic/instance-identity/document`.
///
/// # Errors
/// When it is no such document.
pub fn document(body: &[u8]) -> Result<ImdsInstance, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Document {
        instance_id: String,
        instance_type: String,
        availability_zone: String,
        region: String,
        pending_time: Option<String>,
    }
    let Document { instance_id, instance_type, availability_zone, region, pending_time } = json(body)?;
    Ok(ImdsInstance {
        id: word("instanceId", &instance_id)?,
        instance_type: word("instanceType", &instance_type)?,
        zone: word("availabilityZone", &availability_zone)?,
        region: word("region", &region)?,
        life_cycle: Part::Absent,
        vpc: Part::Absent,
        subnet: Part::Absent,
        started: pending_time.map_or(Part::Absent, |time| started(&time)),
    })
}

/// A time that cannot be read leaves the rest of the document as it is.
fn started(text: &str) -> Part<Timestamp> {
    let malformed = |_| {
        let why = "IMDS: the instance identity document has a pendingTime that is no time";
        Unknown::new(Cause::Malformed, why)
    };
    text.parse::<Timestamp>().map_err(malformed).into()
}

/// Reads a path that has one word.
///
/// # Errors
/// When it is none.
pub fn text(body: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(body).map_err(|_| "expected text".to_owned())?;
    word("it", text.trim())
}

/// Reads `mac`, which becomes a part of a path.
///
/// # Errors
/// When it is no address.
pub fn mac(body: &[u8]) -> Result<String, String> {
    let text = text(body)?;
    let is_of_address = |c: char| c.is_ascii_hexdigit() || c == ':';
    if text.len() == 17 && text.chars().all(is_of_address) {
        Ok(text)
    } else {
        Err("expected a MAC address".to_owned())
    }
}

/// Reads `instance-life-cycle`.
///
/// # Errors
/// When it is no word.
pub fn life_cycle(body: &[u8]) -> Result<LifeCycle, String> {
    Ok(match text(body)?.as_str() {
        "on-demand" => LifeCycle::OnDemand,
        "spot" => LifeCycle::Spot,
        _ => LifeCycle::Other,
    })
}

/// Reads `spot/instance-action`.
///
/// # Errors
/// When it is no such notice.
pub fn spot(body: &[u8]) -> Result<SpotNotice, String> {
    #[derive(Deserialize)]
    struct Notice {
        action: String,
        time: Timestamp,
    }
    let Notice { action, time } = json(body)?;
    let action = match action.as_str() {
        "terminate" => SpotAction::Terminate,
        "stop" => SpotAction::Stop,
        "hibernate" => SpotAction::Hibernate,
        _ => SpotAction::Other,
    };
    Ok(SpotNotice { action, at: time })
}

/// Reads `events/recommendations/rebalance`: when it was recommended.
///
/// # Errors
/// When it is no such notice.
pub fn rebalance(body: &[u8]) -> Result<Timestamp, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Notice {
        notice_time: Timestamp,
    }
    json::<Notice>(body).map(|notice| notice.notice_time)
}

/// Reads `events/maintenance/scheduled` and `events/maintenance/history`.
///
/// # Errors
/// When it is no such list, or one event of it is not understood.
pub fn maintenance(body: &[u8]) -> Result<Vec<Maintenance>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        event_id: String,
        code: String,
        state: String,
        not_before: String,
        // EC2 leaves it out, or empty, where there is none.
        not_after: Option<String>,
    }
    let events: Vec<Event> = json(body)?;
    if events.len() > MAX_EVENTS {
        return Err(format!("more than {MAX_EVENTS} events"));
    }
    let event = |event: Event| {
        let not_after = event.not_after.filter(|time| !time.is_empty());
        Ok(Maintenance {
            id: word("EventId", &event.event_id)?,
            code: word("Code", &event.code)?,
            active: event.state == "active",
            completed: event.state == "completed",
            // The others of the list are understood all the same.
            unknown: !matches!(event.state.as_str(), "active" | "completed" | "canceled"),
            not_before: time("NotBefore", &event.not_before)?,
            not_after: not_after.map(|text| time("NotAfter", &text)).transpose()?,
        })
    };
    events.into_iter().map(event).collect()
}

/// `21 Jan 2019 09:00:43 GMT`, the day without a zero before it.
fn time(name: &str, text: &str) -> Result<Timestamp, String> {
    let parsed = jiff::civil::DateTime::strptime("%d %b %Y %H:%M:%S GMT", text);
    let parsed = parsed.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC)).map(|zoned| zoned.timestamp());
    parsed.map_err(|_| format!("{name}: expected a time such as 21 Jan 2019 09:00:43 GMT"))
}

/// Reads `autoscaling/target-lifecycle-state`.
///
/// # Errors
/// When it is no word.
pub fn autoscaling(body: &[u8]) -> Result<AutoscalingTarget, String> {
    Ok(match text(body)?.as_str() {
        "Detached" | "InService" | "Standby" | "Warmed:Running" => AutoscalingTarget::Stays,
        "Terminated" | "Warmed:Terminated" => AutoscalingTarget::Terminated,
        "Warmed:Stopped" | "Warmed:Hibernated" => AutoscalingTarget::WarmPool,
        _ => AutoscalingTarget::Other,
    })
}

/// The first role of `iam/security-credentials/`: an instance has one.
///
/// # Errors
/// When it is no list of names.
pub fn role(body: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(body).map_err(|_| "expected text".to_owned())?;
    let first = text.lines().next().unwrap_or_default().trim();
    // It becomes a part of a path.
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    let is_dots = first.chars().all(|c| c == '.');
    if is_dots || first.len() > MAX_TEXT || !first.chars().all(is_name) {
        return Err("expected the name of a role".to_owned());
    }
    Ok(first.to_owned())
}

/// Reads `iam/security-credentials/ROLE` and keeps nothing of it that is secret.
///
/// # Errors
/// When it is no such answer.
pub fn credentials(role: &str, body: &[u8]) -> Result<RoleCredentials, String> {
    // The secrets are passed over where they stand: they are copied nowhere.
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        code: String,
        last_updated: Option<Timestamp>,
        expiration: Option<Timestamp>,
        #[serde(rename = "AccessKeyId")]
        _access_key_id: Option<IgnoredAny>,
        #[serde(rename = "SecretAccessKey")]
        _secret_access_key: Option<IgnoredAny>,
        #[serde(rename = "Token")]
        _token: Option<IgnoredAny>,
    }
    let answer: Answer = json(body)?;
    let code = word("Code", &answer.code)?;
    if code == "Success" && answer.expiration.is_none() {
        return Err("expected an Expiration".to_owned());
    }
    Ok(RoleCredentials { role: role.to_owned(), code, updated: answer.last_updated, expires: answer.expiration })
}

/// What serde_json says itself quotes what it found, which may be a secret.
fn json<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("not the JSON that was expected (line {}, column {})", error.line(), error.column()))
}

fn word(name: &str, text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_graphic();
    if text.is_empty() || text.len() > MAX_TEXT || !text.chars().all(is_plain) {
        return Err(format!("{name}: expected one word of at most {MAX_TEXT} characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEDULED: &str = r#"[{"NotBefore":"1 Dec 2026 09:00:43 GMT","Code":"system-reboot","Description":"scheduled reboot","EventId":"instance-event-0d59937288b749b32","NotAfter":"21 Dec 2026 09:17:23 GMT","State":"active"},
        {"NotBefore":"21 Jan 2019 09:00:43 GMT","Code":"instance-stop","EventId":"instance-event-1","NotAfter":"","State":"completed"}]"#;
    const CREDENTIALS: &str = r#"{"Code":"Success","LastUpdated":"2026-11-21T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"ASIAHUNTER2","SecretAccessKey":"hunter2","Token":"hunter2hunter2","Expiration":"2026-11-21T06:12:34Z"}"#;

    #[test]
    fn the_document_has_when_the_instance_started() {
        let started = |more: &str| {
            let body = format!(
                r#"{{"instanceId":"i-1","instanceType":"t3.medium","availabilityZone":"a","region":"r"{more}}}"#
            );
            document(body.as_bytes()).map(|document| document.started)
        };
        let time = "2026-11-20T00:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(started(r#","pendingTime":"2026-11-20T00:00:00Z""#), Ok(Part::Known(time)));
        assert_eq!(started(""), Ok(Part::Absent));
        assert!(started(r#","pendingTime":"soon""#).unwrap().unread().is_some());
    }

    #[test]
    fn scheduled_events_are_understood_without_an_end() {
        let events = maintenance(SCHEDULED.as_bytes()).unwrap();
        let [first, second] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((first.code.as_str(), first.active), ("system-reboot", true));
        assert_eq!(first.not_before.to_string(), "2026-12-01T09:00:43Z");
        assert_eq!(first.not_after.unwrap().to_string(), "2026-12-21T09:17:23Z");
        assert_eq!((second.active, second.not_after), (false, None));
        assert_eq!(maintenance(b"[]"), Ok(Vec::new()));
        let of_another_form = maintenance(SCHEDULED.replacen("active", "rescheduled", 1).as_bytes()).unwrap();
        let states: Vec<_> = of_another_form.iter().map(|event| (event.active, event.unknown)).collect();
        assert_eq!(states, [(false, true), (false, false)]);
        for torn in ["", "{}", "[{}]", "[{\"NotBefore\":\"soon\"}]", "null"] {
            assert!(maintenance(torn.as_bytes()).is_err(), "{torn}");
        }
    }

    #[test]
    fn notices_of_spot_instances_are_understood() {
        let notice = spot(br#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#).unwrap();
        assert_eq!((notice.action, notice.at.as_second()), (SpotAction::Terminate, 1_505_722_920));
        assert_eq!(rebalance(br#"{"noticeTime":"2020-11-05T08:22:00Z"}"#).unwrap().as_second(), 1_604_564_520);
        for none in ["", "terminate", r#"{"action":"stop"}"#, r#"{"action":"stop","time":"soon"}"#] {
            assert!(spot(none.as_bytes()).is_err() && rebalance(none.as_bytes()).is_err(), "{none}");
        }
    }

    #[test]
    fn each_target_of_a_group_is_known() {
        for (text, target) in [
            ("InService", AutoscalingTarget::Stays),
            ("Terminated\n", AutoscalingTarget::Terminated),
            ("Warmed:Terminated", AutoscalingTarget::Terminated),
            ("Warmed:Hibernated", AutoscalingTarget::WarmPool),
            ("Retired", AutoscalingTarget::Other),
        ] {
            assert_eq!(autoscaling(text.as_bytes()), Ok(target), "{text}");
        }
        assert!(autoscaling(b"").is_err() && autoscaling(b"<html> a page").is_err());
    }

    #[test]
    fn no_secret_is_kept_or_quoted() {
        let kept = credentials("node", CREDENTIALS.as_bytes()).unwrap();
        assert_eq!(kept.expires.unwrap().to_string(), "2026-11-21T06:12:34Z");
        let text = format!("{kept:?} {}", serde_json::to_string(&kept).unwrap());
        assert!(!text.to_lowercase().contains("hunter2"), "{text}");
        for cut in 0..CREDENTIALS.len() {
            let reason = credentials("node", &CREDENTIALS.as_bytes()[..cut]).unwrap_err();
            assert!(!reason.to_lowercase().contains("hunter2"), "{reason}");
        }
        let wrong = CREDENTIALS.replace("\"2026-11-21T06:12:34Z\"", "\"hunter2\"");
        assert!(!credentials("node", wrong.as_bytes()).unwrap_err().contains("hunter2"));
        let refused = br#"{"Code":"AssumeRoleUnauthorizedAccess","Message":"x","LastUpdated":"2026-11-21T00:00:00Z"}"#;
        assert_eq!(credentials("node", refused).unwrap().code, "AssumeRoleUnauthorizedAccess");
    }

    #[test]
    fn a_role_is_a_name_that_fits_a_path() {
        assert_eq!(role(b"eks-node_1@x\n"), Ok("eks-node_1@x".to_owned()));
        for other in ["", "a/b", "a b", "..\r\nX: y", "<?xml"] {
            assert!(role(other.as_bytes()).is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text_of in "[a-zA-Z{}\\[\\]\", :0-9%.]{0,200}") {
            for body in [bytes.as_slice(), text_of.as_bytes()] {
                let _ = (document(body), text(body), life_cycle(body), spot(body), rebalance(body));
                let _ = (maintenance(body), autoscaling(body), role(body), credentials("r", body));
            }
        }
    }
}
