//! Every route of every port asks for a credential; no admin route is on the data port.

use baton_tests::{Options, Runner, onnx, runner::binary};
use reqwest::Method;
use serde_json::Value;

const ADMIN: &str = "admin-token-canary-7f3a9c";
const DATA: &str = "data-token-canary-51bd20";

fn guarded(folder: &std::path::Path) -> Runner {
    let file = |name: &str, token: &str| {
        let path = folder.join(name);
        std::fs::write(&path, format!("{token}\n")).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let runner = Options::default()
        .argument("--admin-token-file")
        .argument(&file("admin", ADMIN))
        .argument("--data-token-file")
        .argument(&file("data", DATA))
        .argument("--log-level")
        .argument("debug")
        .start();
    runner.wait_ready();
    runner
}

/// Method and path of every admin route, from the document that the binary itself prints.
fn admin_routes() -> Vec<(Method, String)> {
    let output = std::process::Command::new(binary()).arg("openapi").output().expect("it runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let path = path
            .replace("{model}", "add")
            .replace("{version}", "1")
            .replace("{part}", "artifact")
            .replace("{code}", "INTERNAL");
        for method in operations.as_object().expect("operations").keys() {
            routes.push((method.to_uppercase().parse().expect("a method"), path.clone()));
        }
    }
    routes.extend([(Method::GET, "/docs/".to_owned()), (Method::GET, "/openapi.json".to_owned())]);
    routes
}

fn protocol_routes() -> Vec<(Method, String)> {
    let mut routes = vec![
        (Method::GET, "/v2".to_owned()),
        (Method::GET, "/v2/models".to_owned()),
        (Method::GET, "/v2/models/stats".to_owned()),
        (Method::POST, "/v2/repository/index".to_owned()),
    ];
    for at in ["/v2/models/add", "/v2/models/add/versions/1"] {
        for tail in ["", "/ready", "/config", "/stats"] {
            routes.push((Method::GET, format!("{at}{tail}")));
        }
        routes.push((Method::POST, format!("{at}/infer")));
    }
    routes
}

fn status(runner: &Runner, port: &str, route: &(Method, String), token: Option<&str>) -> (u16, String) {
    let mut request = runner.http().request(route.0.clone(), format!("http://{port}{}", route.1));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().expect("an answer");
    (response.status().as_u16(), response.text().unwrap_or_default())
}

#[test]
fn every_route_asks_for_the_right_token() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let runner = guarded(folder.path());
    let control = [("load", 0), ("unload", 0)]
        .map(|(action, _)| (Method::POST, format!("/v2/repository/models/add/{action}")));
    let admin: Vec<_> = admin_routes().into_iter().chain(protocol_routes()).chain(control.clone()).collect();
    let mut walked = 0;
    for route in &admin {
        for (token, expected) in [(None, 401), (Some("wrong-token-0123456789"), 401), (Some(DATA), 403)] {
            let (got, body) = status(&runner, runner.admin(), route, token);
            assert_eq!(got, expected, "{route:?} with {token:?}: {body}");
            assert!(!body.contains("canary"), "{route:?}: a token in {body}");
            walked += 1;
        }
        let (got, body) = status(&runner, runner.admin(), route, Some(ADMIN));
        assert!(got != 401 && got != 403, "{route:?}: {got} {body}");
    }
    for route in &protocol_routes() {
        assert_eq!(status(&runner, runner.data(), route, None).0, 401, "{route:?}");
        for token in [DATA, ADMIN] {
            let got = status(&runner, runner.data(), route, Some(token)).0;
            assert!(got != 401 && got != 403, "{route:?}: {got}");
        }
        walked += 3;
    }
    for route in admin_routes().iter().chain(&control) {
        assert_eq!(status(&runner, runner.data(), route, Some(ADMIN)).0, 404, "{route:?} on the data port");
        walked += 1;
    }
    println!("{} admin routes, {walked} calls", admin.len());
    for path in ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(status(&runner, runner.data(), &(Method::GET, path.to_owned()), None).0, 200, "{path}");
        assert_eq!(status(&runner, runner.admin(), &(Method::GET, path.to_owned()), None).0, 200, "{path}");
    }
    let leaked = runner.log();
    assert!(!leaked.contains("canary"), "a token in the log");
}

#[test]
fn grpc_asks_for_a_token_too() {
    use baton_proto::inference::ServerMetadataRequest;
    use baton_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
    let folder = tempfile::TempDir::new().expect("a folder");
    let runner = guarded(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (port, right) in [(runner.admin(), ADMIN), (runner.data(), DATA)] {
            let channel =
                tonic::transport::Channel::from_shared(format!("http://{port}")).expect("an address");
            let mut client = GrpcInferenceServiceClient::new(channel.connect().await.expect("connected"));
            let refused = client.server_metadata(ServerMetadataRequest {}).await.expect_err("refused");
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
            let mut request = tonic::Request::new(ServerMetadataRequest {});
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {right}").parse().expect("a value"));
            client.server_metadata(request).await.expect("answered");
        }
    });
}

#[test]
fn tokens_are_exchanged_without_a_restart() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let runner = guarded(folder.path());
    let list = (Method::GET, "/v1/models".to_owned());
    let new = "admin-token-second-0123";
    std::fs::write(folder.path().join("admin"), format!("{ADMIN}\n{new}\n")).expect("written");
    let accepted = |token: &str, expected: u16| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while status(&runner, runner.admin(), &list, Some(token)).0 != expected {
            assert!(std::time::Instant::now() < deadline, "{token} never answered {expected}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    accepted(new, 200);
    accepted(ADMIN, 200);
    std::fs::write(folder.path().join("admin"), format!("{new}\n")).expect("written");
    accepted(ADMIN, 401);
    accepted(new, 200);
}

#[test]
fn beyond_loopback_is_refused_without_a_token() {
    for flag in ["--listen", "--admin-listen"] {
        let output = std::process::Command::new(binary())
            .args(["serve", "--store", "/nonexistent/never", flag, "0.0.0.0:0"])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(64), "{flag}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("token-file") && text.contains("--insecure"), "{text}");
    }
}

#[test]
fn pages_of_other_origins_cannot_call_the_admin_port() {
    let runner = Runner::start();
    runner.push("add", &onnx::add(1.0));
    for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
        let url = format!("http://{}/v1/models/add?force=true", runner.admin());
        let response = runner
            .http()
            .request(method.clone(), url)
            .header("origin", "http://evil.example")
            .send()
            .expect("an answer");
        assert_eq!(response.status(), 403, "{method}");
        assert!(
            response.headers().keys().all(|name| !name.as_str().starts_with("access-control")),
            "{method}"
        );
    }
    assert_eq!(runner.active("add").as_deref(), Some("1"));
}
