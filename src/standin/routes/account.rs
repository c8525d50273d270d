//! `/auth/*`: registering, sessions in cookies.

use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;
use serde_json::{Map, Value};

use crate::standin::backend::Backend;
use crate::standin::bug::Bug;
use crate::standin::call::{Call, require_keys};
use crate::standin::clock::{in_reply, now_us};
use crate::standin::reply::{Answer, Reply};
use crate::standin::token::Token;

const CREDENTIALS: [&str; 2] = ["username", "password"];

pub(super) async fn register(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let object = call.object()?;
    if object.keys().any(|key| !CREDENTIALS.contains(&key.as_str())) {
        return Err(Reply::bad_request("Wrong data provided"));
    }
    let Some((name, password)) = credentials(&object) else {
        let text = "Internal server error";
        return Err(Reply::message(StatusCode::INTERNAL_SERVER_ERROR, text));
    };
    let registered = backend.store().register(name, password);
    registered.ok_or_else(|| Reply::message(StatusCode::FORBIDDEN, "User existing"))?;
    Ok(Reply::message(StatusCode::CREATED, "User created"))
}

pub(super) async fn login(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let object = call.filled_object()?;
    require_keys(&object, &CREDENTIALS)?;
    tokio::time::sleep(backend.config.login_cost).await;
    let refused = || Reply::message(StatusCode::UNAUTHORIZED, "Invalid login or password");
    let (name, password) = credentials(&object).ok_or_else(Reply::server_error)?;
    if backend.has(&Bug::LoginRefused) {
        return Err(refused());
    }
    let user = {
        let mut store = backend.store();
        let user = store.login(name, password).map(|user| user.id).ok_or_else(refused)?;
        store.logins += 1;
        user
    };
    let now = now_us();
    let (access, refresh) = (backend.mint.access(user, now), backend.mint.refresh(user, now));
    let content = Map::from_iter([expiry("access_exp", &access), expiry("refresh_exp", &refresh)]);
    Ok(Reply::with(StatusCode::ACCEPTED, "Successfully logged in", content)
        .cookie(cookie("access_token", &access))
        .cookie(cookie("refresh_token", &refresh)))
}

pub(super) async fn refresh(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user_to_refresh(&call)?;
    let access = backend.mint.access(user.id, now_us());
    let content = Map::from_iter([expiry("access_exp", &access)]);
    Ok(Reply::with(StatusCode::OK, "User refreshed", content).cookie(cookie("access_token", &access)))
}

pub(super) async fn status(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    let content = Map::from_iter([("username".to_owned(), Value::from(user.name))]);
    Ok(Reply::with(StatusCode::OK, "User status", content))
}

pub(super) async fn logout() -> Reply {
    let gone = |name| format!("{name}=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/");
    Reply::ok("User logged out").cookie(gone("access_token")).cookie(gone("refresh_token"))
}

pub(super) async fn update(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    Ok(Reply::accepted(&format!("User {} updated", user.name)))
}

fn credentials(object: &Map<String, Value>) -> Option<(&str, &str)> {
    Some((object.get("username")?.as_str()?, object.get("password")?.as_str()?))
}

/// An end in epoch milliseconds, as the target gives it.
fn expiry(key: &str, token: &Token) -> (String, Value) {
    (key.to_owned(), Value::from(token.expires_us / 1000))
}

fn cookie(name: &str, token: &Token) -> String {
    let expires = in_reply(token.expires_us);
    format!("{name}={}; Expires={expires}; HttpOnly; Path=/; SameSite=Lax", token.text)
}
