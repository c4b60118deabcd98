package naiad.client;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/** A tensor: its bytes are little-endian and row-major, as on the wire. */
public record Tensor(String name, String datatype, List<Long> shape, byte[] bytes) {
    /** Makes a tensor of floats. */
    public static Tensor of(String name, List<Long> shape, float[] values) {
        ByteBuffer buffer = ByteBuffer.allocate(values.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        buffer.asFloatBuffer().put(values);
        return new Tensor(name, "FP32", shape, buffer.array());
    }

    /** Reads a tensor of floats. */
    public float[] floats() {
        float[] values = new float[bytes.length / Float.BYTES];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
        return values;
    }
}
