//! The API's description of itself, and the page to read it: both for everybody, before any token.

use weft_control::http::{openapi, routes};
use weft_tests_api::Api;

#[tokio::test]
async fn the_description_and_its_page_are_there_for_everybody() {
    let api = Api::start().await;
    let nobody = api.anonymous();
    let said = nobody.get("/openapi.json").await.ok();
    assert_eq!(said, openapi::document());
    let paths = said["paths"].as_object().expect("an object");
    for route in routes() {
        let method = route.method.as_str().to_ascii_lowercase();
        let operation = &paths[route.path][&method];
        assert!(
            operation["responses"].is_object(),
            "{method} {}",
            route.path
        );
    }
    let page = nobody.open("/openapi").await;
    assert_eq!(page.status(), 200);
    let kind = page.headers()["content-type"].to_str().expect("a text");
    assert!(kind.starts_with("text/html"), "{kind}");
    let text = page.text().await.expect("a text");
    assert!(text.contains("openapi.json"), "it reads the description");
}
