import java.nio.file.Files;
import java.nio.file.Path;
import org.codelibs.opensearch.runner.OpenSearchRunner;

/** An OpenSearch node in this process: Launch DIRECTORY HTTP_PORT TRANSPORT_PORT PID. It ends when that process does. */
public class Launch {
    public static void main(String[] arguments) throws Exception {
        ProcessHandle.of(Long.parseLong(arguments[3])).ifPresentOrElse(
                owner -> owner.onExit().thenRun(() -> Runtime.getRuntime().halt(0)),
                () -> Runtime.getRuntime().halt(0));
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("discovery.type", "single-node");
            settings.put("network.host", "127.0.0.1");
            settings.put("http.port", arguments[1]);
            settings.put("transport.port", arguments[2]);
            settings.put("cluster.routing.allocation.disk.threshold_enabled", false);
            settings.put("node.store.allow_mmap", false);
            settings.put("indices.breaker.total.use_real_memory", false); // the simple collector is in no hurry
        }).build(OpenSearchRunner.newConfigs().basePath(arguments[0]).numOfNode(1).clusterName("turnlog"));
        Files.createFile(Path.of(arguments[0], "ready"));
        Thread.currentThread().join();
    }
}
