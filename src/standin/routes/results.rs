//! `GET /results` and `GET /estimators`.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::standin::backend::Backend;
use crate::standin::bug::Flaw;
use crate::standin::call::Call;
use crate::standin::metrics::Payload;
use crate::standin::reply::{Answer, Reply};
use crate::standin::stored::{Estimator, Page};

const PARAMS: [&str; 4] = ["job_id", "estimator_name", "page_number", "page_numbers"];

pub(super) async fn fetch(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    call.only_params(&PARAMS)?;
    let job_id = call.job_id()?;
    let slow = backend.slow_fetch();
    if !slow.is_zero() {
        tokio::time::sleep(slow).await;
    }
    let mut store = backend.store();
    let (pk, job) = store.job_of(user.id, job_id)?;
    let missing = job.has(Flaw::MissingResults);
    let found = job.results.as_ref().filter(|_| !missing);
    let results = found.ok_or_else(|| Reply::not_found("Results are unavailable"))?;
    let Some(name) = call.param("estimator_name") else {
        let body = if job.has(Flaw::WrongResults) { results.without_last(pk) } else { results.whole() };
        let cut = if job.has(Flaw::BrokenResults) { body.len() / 2 } else { body.len() };
        job.fetched = true;
        backend.metrics.payload(Payload::Results, cut);
        return Ok(Reply::json(StatusCode::OK, body.slice(..cut)));
    };
    let estimator = results.estimators.iter().find(|estimator| estimator.name == name);
    match (call.param("page_number"), call.param("page_numbers")) {
        (Some(number), _) => one_page(estimator, number),
        (None, Some(numbers)) => some_pages(estimator, numbers),
        (None, None) => {
            let estimator = estimator.ok_or_else(|| Reply::not_found("Estimator not found"))?;
            whole_estimator(estimator, pk)
        }
    }
}

fn whole_estimator(estimator: &Estimator, pk: u64) -> Answer {
    let name = Value::from(estimator.name.as_str());
    let head = format!(
        "{{\"message\":\"Results for simulation: {pk}\",\"metadata\":{},\"name\":{name},\"pages\":[",
        estimator.metadata
    );
    Ok(list(head, estimator.pages.iter().map(|page| &page.json), "]}\n"))
}

fn one_page(estimator: Option<&Estimator>, number: &str) -> Answer {
    let number: Option<i64> = number.parse().ok();
    let mut pages = estimator.into_iter().flat_map(|estimator| &estimator.pages);
    let page = pages.find(|page| Some(page.number) == number).ok_or_else(Reply::server_error)?;
    let head = "{\"message\":\"Page retrieved successfully\",\"page\":".to_owned();
    Ok(list(head, [&page.json].into_iter(), "}\n"))
}

fn some_pages(estimator: Option<&Estimator>, numbers: &str) -> Answer {
    let wanted = page_numbers(numbers).ok_or_else(Reply::server_error)?;
    let pages = estimator.into_iter().flat_map(|estimator| &estimator.pages);
    let pages = pages.filter(|page| wanted.iter().any(|(from, to)| (from..=to).contains(&&page.number)));
    let head = "{\"message\":\"Pages retrieved successfully\",\"pages\":[".to_owned();
    Ok(list(head, pages.map(|page| &page.json), "]}\n"))
}

/// Reads `0-2,5` as closed ranges.
fn page_numbers(text: &str) -> Option<Vec<(i64, i64)>> {
    let range = |part: &str| match part.split_once('-') {
        Some((from, to)) => Some((from.parse().ok()?, to.parse().ok()?)),
        None => part.parse().ok().map(|number| (number, number)),
    };
    text.split(',').map(range).collect()
}

fn list<'a>(head: String, items: impl Iterator<Item = &'a Bytes>, tail: &str) -> Reply {
    let mut body = head.into_bytes();
    for (place, item) in items.enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item);
    }
    body.extend_from_slice(tail.as_bytes());
    Reply::json(StatusCode::OK, body)
}

pub(super) async fn estimators(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    call.only_params(&["job_id"])?;
    let mut store = backend.store();
    let (_, job) = store.job_of(user.id, call.job_id()?)?;
    let missing = job.has(Flaw::MissingResults);
    let found = job.results.as_ref().filter(|_| !missing);
    let results = found.ok_or_else(|| Reply::not_found("Pages metadata not found"))?;
    let page = |page: &Page| json!({"page_dimension": page.dimensions, "page_name": page.name, "page_number": page.number});
    let metadata: Vec<Value> = results
        .estimators
        .iter()
        .map(|e| json!({"name": e.name, "pages_metadata": e.pages.iter().map(page).collect::<Vec<_>>()}))
        .collect();
    let content = Map::from_iter([("estimators_metadata".to_owned(), Value::from(metadata))]);
    Ok(Reply::with(StatusCode::OK, "Estimators metadata", content))
}

#[cfg(test)]
mod tests {
    use super::page_numbers;

    #[test]
    fn page_numbers_are_lists_of_ranges() {
        assert_eq!(page_numbers("0-2,5"), Some(vec![(0, 2), (5, 5)]));
        assert_eq!(page_numbers("x"), None);
        assert_eq!(page_numbers(""), None);
    }
}
