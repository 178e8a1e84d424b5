//! What is refused to all clients, or to some.

use anyhow::{Result, ensure};

use super::{Server, code, refused};

pub fn tokens(server: &Server<'_>) -> Result<()> {
    for path in ["/api/v1/nodes/refused", "/api/v1/nodes?watch=true"] {
        let stranger = server.admin.with_token("nobody-knows-it");
        let status = refused(&stranger.get(path)?, 401, "Unauthorized")?;
        ensure!(status["message"] == "Unauthorized", "{status}");
        let status = refused(&server.nobody.get(path)?, 403, "Forbidden")?;
        ensure!(status["details"]["kind"] == "nodes", "{status}");
    }
    Ok(())
}

pub fn not_found(server: &Server<'_>) -> Result<()> {
    let status = refused(&server.admin.get("/api/v1/nodes/nobody")?, 404, "NotFound")?;
    ensure!(status["message"] == r#"nodes "nobody" not found"#, "{status}");
    ensure!(status["details"]["name"] == "nobody" && status["details"]["kind"] == "nodes", "{status}");
    let status = refused(&server.admin.get("/apis/storage.k8s.io/v1/csinodes/nobody")?, 404, "NotFound")?;
    ensure!(status["message"] == r#"csinodes.storage.k8s.io "nobody" not found"#, "{status}");
    ensure!(status["details"]["group"] == "storage.k8s.io", "{status}");
    Ok(())
}

pub fn unknown_field(server: &Server<'_>) -> Result<()> {
    let reply = server.admin.get("/api/v1/pods?fieldSelector=spec.priority%3D1")?;
    refused(&reply, 400, "BadRequest")?;
    let reply = server.admin.get("/api/v1/nodes?watch=true&fieldSelector=spec.podCIDR%3Da")?;
    refused(&reply, 400, "BadRequest").map(drop)
}

pub fn no_group(server: &Server<'_>) -> Result<()> {
    let reply = code(server.admin.get("/apis/nobody.example.com/v1/things/a")?, 404)?;
    ensure!(reply.text() == "404 page not found\n", "{}", reply.text());
    ensure!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{:?}", reply.headers);
    Ok(())
}
