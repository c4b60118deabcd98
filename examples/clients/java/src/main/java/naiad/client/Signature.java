package naiad.client;

import java.util.List;

/** What a model says about one of its inputs. */
public record Signature(String name, String datatype, List<Long> shape) {}
