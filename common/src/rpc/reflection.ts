/** Server reflection (v1 and v1alpha) as Connect services, answered from the generated descriptors. */
import { type DescFile, type DescService, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import { reflectionV1, reflectionV1alpha } from "@warren/proto/grpc";

type Reply = {
  messageResponse:
    | { case: "listServicesResponse"; value: { service: { name: string }[] } }
    | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array[] } }
    | { case: "errorResponse"; value: { errorCode: number; errorMessage: string } };
};

type Request = { messageRequest: { case: string | undefined; value?: unknown } };

/** Offers the descriptors of these services and of all they import. */
export function reflectionRoutes(router: ConnectRouter, services: readonly DescService[]): void {
  const files = new Map<string, DescFile>();
  const add = (file: DescFile): void => {
    const name = `${file.name}.proto`;
    if (files.has(name)) return;
    files.set(name, file);
    file.dependencies.forEach(add);
  };
  for (const service of services) add(service.file);

  const symbols = new Map<string, DescFile>();
  for (const file of files.values()) {
    for (const desc of [...file.messages, ...file.enums, ...file.services, ...file.extensions]) {
      symbols.set(desc.typeName, file);
    }
    for (const service of file.services) {
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
  }

  const refuse = (errorMessage: string, code: Code = Code.NotFound): Reply => ({
    messageResponse: { case: "errorResponse", value: { errorCode: code, errorMessage } },
  });
  const withImports = (file: DescFile): Reply => {
    const seen = new Set<DescFile>();
    const visit = (f: DescFile): void => {
      if (seen.has(f)) return;
      seen.add(f);
      f.dependencies.forEach(visit);
    };
    visit(file);
    return {
      messageResponse: {
        case: "fileDescriptorResponse",
        value: { fileDescriptorProto: [...seen].map((f) => toBinary(FileDescriptorProtoSchema, f.proto)) },
      },
    };
  };
  const answer = ({ messageRequest: { case: kind, value } }: Request): Reply => {
    switch (kind) {
      case "listServices":
        return {
          messageResponse: {
            case: "listServicesResponse",
            value: { service: services.map((s) => ({ name: s.typeName })) },
          },
        };
      case "fileByFilename": {
        const file = files.get(String(value));
        return file ? withImports(file) : refuse(`no file ${String(value)}`);
      }
      case "fileContainingSymbol": {
        const file = symbols.get(String(value)) ?? symbols.get(String(value).replace(/\.[^.]+$/, ""));
        return file ? withImports(file) : refuse(`no symbol ${String(value)}`);
      }
      default:
        return refuse("not supported: ask for services, files or symbols", Code.Unimplemented);
    }
  };
  router.service(reflectionV1.ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests)
        yield { validHost: request.host, originalRequest: request, ...answer(request) };
    },
  });
  router.service(reflectionV1alpha.ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests)
        yield { validHost: request.host, originalRequest: request, ...answer(request) };
    },
  });
}
