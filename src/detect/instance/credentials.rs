//! CredentialRotationFailed: are the credentials of the instance's role not renewed?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{ImdsCredentials, Part, RoleCredentials, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, LastRole, Required};
use crate::view::{Seen, sources};
use crate::wording;

const KIND: Kind = Kind::CredentialRotationFailed;

/// IMDS has new credentials at least so long before the old ones end.
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// The detector.
pub const DETECTOR: Detector = Detector::typed::<CredentialRotationFailed>();

struct CredentialRotationFailed;

impl Detect for CredentialRotationFailed {
    const KINDS: &'static [Kind] = &[KIND];
    type In = (Required<sources::ImdsCredentials>, LastRole);

    fn evaluate((credentials, last): <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let object = || Object::new(ObjectType::Resource, "role-credentials");
        let decision = match &credentials.value.role {
            Part::Known(role) => decide(credentials, role, object()),
            Part::Absent => {
                last.map_or(Tri::No(credentials.no()), |last| Tri::Yes(taken_away(credentials, last, object())))
            }
            Part::Unknown(why) => Tri::Unknown((**why).clone()),
        };
        out.decide(KIND, object, decision);
    }
}

/// A role that the instance had, and that IMDS lists no more: its instance profile was taken away.
fn taken_away(seen: Seen<'_, ImdsCredentials>, last: &RoleCredentials, object: Object) -> Finding {
    let RoleCredentials { role, expires, .. } = last;
    let left = expires.map(|expires| expires.duration_since(seen.at.wall));
    let (severity, until) = match left {
        Some(left) if left.is_negative() || left.is_zero() => {
            (Severity::Critical, format!("; the last ones expired {} ago", wording::duration(left.unsigned_abs())))
        }
        Some(left) => (Severity::Warning, format!("; the last ones end in {}", wording::duration(left.unsigned_abs()))),
        None => (Severity::Warning, String::new()),
    };
    Finding {
        kind: KIND,
        severity,
        object,
        message: format!("IMDS no longer lists role {role}, whose credentials this instance had{until}"),
        evidence: vec![seen.says("iam/security-credentials/: 404")],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    }
}

fn decide(seen: Seen<'_, ImdsCredentials>, credentials: &RoleCredentials, object: Object) -> Tri<Finding> {
    let RoleCredentials { role, code, expires, .. } = credentials;
    // By the time of the reading: IMDS may have had newer ones since.
    let left = expires.map(|expires| expires.duration_since(seen.at.wall));
    let (severity, message) = match left {
        _ if code != "Success" => (Severity::Warning, format!("IMDS refuses the credentials of role {role}: {code}")),
        Some(left) if left.is_negative() || left.is_zero() => {
            let ago = wording::duration(left.unsigned_abs());
            (Severity::Critical, format!("IMDS hands out credentials of role {role} that expired {ago} ago"))
        }
        Some(left) if left.unsigned_abs() < RENEWED_BEFORE => {
            let left = wording::duration(left.unsigned_abs());
            let message = format!("the credentials of role {role} end in {left}, and IMDS has not renewed them");
            (Severity::Warning, message)
        }
        _ => return Tri::No(seen.no()),
    };
    let end = expires.map(|expires| format!(", Expiration {expires}")).unwrap_or_default();
    Tri::Yes(Finding {
        kind: KIND,
        severity,
        object,
        message,
        evidence: vec![seen.says(format!("iam/security-credentials/{role}: Code {code}{end}"))],
        advice: crate::catalogue::row(KIND).remediation.to_owned(),
    })
}
