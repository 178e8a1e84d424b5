//! CredentialRotationFailed: are the credentials of the instance's role not renewed?

use std::time::Duration;

use crate::detect::{Around, Detect, Detector, Evaluation};
use crate::facts::{ImdsCredentials, Part, RoleCredentials, Tri};
use crate::finding::{Finding, Kind, Object, ObjectType, Severity};
use crate::view::input::{Input, Required};
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
    type In = Required<sources::ImdsCredentials>;

    fn evaluate(credentials: <Self::In as Input>::Of<'_>, _: &Around<'_>, out: &mut Evaluation) {
        let object = || Object::new(ObjectType::Resource, "role-credentials");
        let decision = match &credentials.value.role {
            Part::Known(role) => decide(credentials, role, object()),
            Part::Absent => Tri::No(credentials.no()),
            Part::Unknown(why) => Tri::Unknown((**why).clone()),
        };
        out.decide(KIND, object, decision);
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
