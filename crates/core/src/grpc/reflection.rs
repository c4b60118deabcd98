//! What the server offers, for tools without a copy of its `.proto` files.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;

use super::body::{Part, ResponseBody, frame};
use super::error::{self, GrpcError};
use super::messages::DESCRIPTORS;
use super::messages::reflection::server_reflection_request::MessageRequest;
use super::messages::reflection::server_reflection_response::MessageResponse;
use super::messages::reflection::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse,
    ServiceResponse,
};
use super::stream::Open;
use super::{Answer, Call};
use crate::error::InferError;

/// As much of a descriptor as finding it takes.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    imports: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Item>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<Named>,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Item>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// A file as it was encoded, and what it defines.
struct Known {
    encoded: Bytes,
    name: String,
    imports: Vec<String>,
    services: Vec<String>,
    symbols: Vec<String>,
}

static FILES: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let set = FileSet::decode(DESCRIPTORS).expect("the checked-in descriptors are a descriptor set");
    set.files.into_iter().map(known).collect()
});

fn known(encoded: Bytes) -> Known {
    let file = File::decode(encoded.clone()).expect("the checked-in descriptors are descriptors");
    let named = |name: &str| format!("{}.{name}", file.package);
    let services: Vec<String> = file.services.iter().map(|service| named(&service.name)).collect();
    let mut symbols: Vec<String> = file.enums.iter().map(|item| named(&item.name)).collect();
    for (service, path) in file.services.iter().zip(&services) {
        symbols.extend(service.methods.iter().map(|method| format!("{path}.{}", method.name)));
    }
    let mut items: Vec<(String, &Item)> = file.messages.iter().map(|item| (named(&item.name), item)).collect();
    while let Some((path, item)) = items.pop() {
        items.extend(item.nested.iter().map(|nested| (format!("{path}.{}", nested.name), nested)));
        symbols.extend(item.enums.iter().map(|inner| format!("{path}.{}", inner.name)));
        symbols.push(path);
    }
    symbols.extend_from_slice(&services);
    Known { encoded, name: file.name, imports: file.imports, services, symbols }
}

/// `ServerReflectionInfo`
pub fn reflect(call: Call) -> Answer {
    call.caller()?;
    let open = Open::new(&call.front)?;
    let (sender, parts) = mpsc::channel(1);
    let Call { front, mut messages, .. } = call;
    tokio::spawn(async move {
        let _open = open;
        let mut changes = front.shared.changes();
        let end = loop {
            if front.shared.is_exiting() {
                break Err(GrpcError::from(InferError::Exiting));
            }
            let request = tokio::select! {
                () = sender.closed() => return,
                _ = changes.changed() => continue,
                request = messages.next::<ServerReflectionRequest>() => request,
            };
            match request {
                Err(error) => break Err(error),
                Ok(None) => break Ok(()),
                Ok(Some(request)) => {
                    if sender.send(Part::Message(frame(&answer(request)))).await.is_err() {
                        return;
                    }
                }
            }
        };
        let _ = sender.send(Part::Trailers(end.map_or_else(|error| error.headers(), |()| error::ok()))).await;
    });
    Ok(ResponseBody::stream(parts))
}

fn answer(request: ServerReflectionRequest) -> ServerReflectionResponse {
    let found = match &request.message_request {
        Some(MessageRequest::ListServices(_)) => {
            let names = FILES.iter().flat_map(|file| &file.services);
            let service = names.map(|name| ServiceResponse { name: name.clone() }).collect();
            Some(MessageResponse::ListServicesResponse(ListServiceResponse { service }))
        }
        Some(MessageRequest::FileByFilename(name)) => FILES.iter().find(|file| file.name == *name).map(with_imports),
        Some(MessageRequest::FileContainingSymbol(symbol)) => {
            FILES.iter().find(|file| file.symbols.contains(symbol)).map(with_imports)
        }
        // None of our messages can be extended.
        Some(MessageRequest::FileContainingExtension(_) | MessageRequest::AllExtensionNumbersOfType(_)) | None => None,
    };
    let response = found.unwrap_or_else(|| {
        let (error_code, error_message) = error::not_described();
        MessageResponse::ErrorResponse(ErrorResponse { error_code, error_message })
    });
    ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        message_response: Some(response),
    }
}

/// A file behind those that it imports.
fn with_imports(file: &Known) -> MessageResponse {
    let imports = FILES.iter().filter(|other| file.imports.contains(&other.name));
    let file_descriptor_proto = imports.chain([file]).map(|file| file.encoded.clone()).collect();
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::routes::ROUTES;

    #[test]
    fn every_method_of_the_table_is_described() {
        for route in ROUTES.iter().filter(|route| !route.pattern.contains("v1alpha")) {
            let symbol = route.pattern.trim_start_matches('/').replace('/', ".");
            assert!(FILES.iter().any(|file| file.symbols.contains(&symbol)), "{symbol}");
        }
        let described = FILES.iter().flat_map(|file| &file.services).count();
        assert_eq!(described, 3);
    }

    #[test]
    fn a_symbol_brings_its_file_and_the_imports() {
        let ask = |symbol: &str| {
            let message_request = Some(MessageRequest::FileContainingSymbol(symbol.to_owned()));
            answer(ServerReflectionRequest { message_request, ..ServerReflectionRequest::default() }).message_response
        };
        let Some(MessageResponse::FileDescriptorResponse(files)) = ask("inference.ModelInferRequest.InferInputTensor")
        else {
            panic!("the symbol is known")
        };
        assert_eq!(files.file_descriptor_proto.len(), 2);
        assert!(matches!(ask("inference.Nope"), Some(MessageResponse::ErrorResponse(_))));
    }
}
