// Written by tsmzoo {{ contract.versions.tsmzoo }} for {{ file }}, sha256
// {{ contract.sha256 }}.
// Numbers and names are those of {{ contract_file }}: export again rather than edit them. The package is yours to change.
package tsmzoo

import java.io.Closeable
import java.io.DataInputStream
import java.io.InputStream
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.ArrayDeque
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import org.tensorflow.lite.Interpreter

/**
{% if online %}
 * Runs {{ contract.model }} over a stream, frame by frame, and keeps its {{ (contract.parts or contract.states) | length }} states between them.
{% else %}
 * Runs {{ contract.model }} over clips of {{ contract.frames }} frames.
{% endif %}
 *
 * It belongs to one thread at a time, as the interpreter does; close it when done.
 *
 * @param model the bytes of {{ file }}, in a direct or mapped buffer
{% if online %}
 * @param window frames whose logits are averaged
 * @param hold frames running that a class must be the likeliest before it becomes the answer
{% else %}
 * @param window clips whose logits are averaged
 * @param hold clips running that a class must be the likeliest before it becomes the answer
{% endif %}
 * @param threshold probability that the likeliest class must reach to count
 */
class {{ class }}(
    model: ByteBuffer,
    threads: Int = 2,
    private val window: Int = WINDOW,
    private val threshold: Float = THRESHOLD,
    private val hold: Int = HOLD
) : Closeable {
    /** What the model holds the stream to be, and the probability of that by now. */
    data class Answer(val index: Int, val label: String, val probability: Float)

    private val interpreter = Interpreter(model, Interpreter.Options().setNumThreads(threads))
    private val input = empty(INPUT_VALUES * INPUT_BYTES)
    private val logits = empty(CLASSES * FLOAT_BYTES)

    /** What is to be shown; null as long as nothing is decided. */
    var answer: Answer? = null
        private set

    private val recent = ArrayDeque<FloatArray>()
    private var leader = NONE
    private var streak = 0
{% if online %}

    /** What the last frame left behind, and where the next one leaves its own; the two change places. */
    private var held = zeros()
    private var next = zeros()
{% endif %}
{% if paced %}
    private var due = Double.NEGATIVE_INFINITY
{% endif %}

{% if online %}
    /** Forgets all that was seen. Call it where the stream breaks: after a pause, when another camera takes over. */
{% if contract.averages %}
    // And where an action begins: an answer is of all frames since, each weighing alike.
{% endif %}
    fun reset() {
        held = zeros()
{% if paced %}
        due = Double.NEGATIVE_INFINITY
{% endif %}
{% else %}
    /** Forgets the clips seen so far. */
    fun reset() {
{% endif %}
        recent.clear()
        answer = null
        leader = NONE
        streak = 0
    }
{% if paced %}

    /** Says whether the frame of this time is to be seen: the model knows [FPS] frames a second, whatever comes. */
    fun isDue(seconds: Double): Boolean {
        val step = 1 / FPS
        if (due - step - CLOCK_SLACK <= seconds && seconds < due - CLOCK_SLACK) return false
        // The clock keeps its beat, whatever the camera's own; after a gap, or a jump back, it starts anew.
        val kept = due <= seconds + CLOCK_SLACK && seconds < due + step
        due = (if (kept) due else seconds) + step
        return true
    }
{% endif %}
{% if rgb %}

{% if online %}
    /** Shows the model the next frame: [SIZE] x [SIZE] pixels as Bitmap.getPixels gives them. Returns [answer]. */
    fun see(pixels: IntArray): Answer? {
        start(input)
        put(pixels)
        return decide(run(input))
    }
{% else %}
    /** Shows the model a clip: [FRAMES] times [SIZE] x [SIZE] pixels, as Bitmap.getPixels gives them, in order of time. */
    fun see(clip: List<IntArray>): Answer? {
        require(clip.size == FRAMES) { "a clip has $FRAMES frames, not ${clip.size}" }
        start(input)
        clip.forEach { put(it) }
        return decide(run(input))
    }
{% endif %}

    private fun put(pixels: IntArray) {
        require(pixels.size == SIZE * SIZE) { "a frame has $SIZE x $SIZE pixels, not ${pixels.size}" }
        for (pixel in pixels) {
{% if not embedded %}
            for (channel in 0 until 3) {
                val value = (pixel shr SHIFTS[channel]) and 0xff
                input.putFloat(((value / 255.0 - MEAN[channel]) / STD[channel]).toFloat())
            }
{% else %}
            for (shift in SHIFTS) {
{% if main.dtype == "uint8" %}
                input.put((pixel shr shift).toByte())
{% else %}
                input.putFloat(((pixel shr shift) and 0xff).toFloat())
{% endif %}
            }
{% endif %}
        }
    }
{% else %}

    /** Shows the model an input as the file takes it. Returns [answer]. */
    fun see({{ main.name }}: ByteBuffer): Answer? = decide(run({{ main.name }}))
{% endif %}

    /**
     * Returns the logits, before any averaging, of an input as the file takes it: `{{ main.name }}`, {{ main.lengths() | join(", ") }}.
     *
     * {{ main.meaning }}
     */
    fun run({{ main.name }}: ByteBuffer): FloatArray {
        val inputs = HashMap<String, Any>()
        val outputs = HashMap<String, Any>()
        inputs["{{ main.name }}"] = {{ main.name }}
        outputs["{{ contract.outputs[0].name }}"] = logits
{% if online %}
        STATES.forEachIndexed { index, state ->
            inputs[state.input] = held[index]
            outputs[state.output] = next[index]
            start(held[index], next[index])
        }
{% endif %}
        start({{ main.name }}, logits)
        interpreter.runSignature(inputs, outputs, SIGNATURE)
{% if online %}
        held = next.also { next = held }
{% endif %}
        start(logits)
        return FloatArray(CLASSES) { logits.getFloat() }
    }

    /** Averages, and lets a class become the answer once it has been the likeliest for long enough. */
    private fun decide(latest: FloatArray): Answer? {
        recent.addLast(latest)
        while (recent.size > window) recent.removeFirst()
        val mean = FloatArray(CLASSES) { index ->
            var sum = 0f
            for (row in recent) sum += row[index]
            sum / recent.size
        }
        var best = 0
        for (index in 1 until CLASSES) if (mean[index] > mean[best]) best = index
{% if contract.activation == "sigmoid" %}
        // Several classes may hold: each has a probability of its own.
        fun probability(index: Int) = 1 / (1 + exp(-mean[index]))
{% else %}
        var total = 0f
        for (value in mean) total += exp(value - mean[best])
        fun probability(index: Int) = exp(mean[index] - mean[best]) / total
{% endif %}
        val now = if (probability(best) < threshold) NONE else best
        streak = if (now == leader) streak + 1 else 1
        leader = now
        val shown = if (now != NONE && streak >= hold) now else answer?.index ?: return null
        return Answer(shown, LABELS[shown], probability(shown)).also { answer = it }
    }

    /**
     * Runs the test vector and returns the largest error, as a share of the logits' range: at most [TOLERANCE] where
     * this device computes what it should.
     *
     * @param input vector/input.bin
     * @param expected vector/logits.bin
     */
    fun selfCheck(input: InputStream, expected: InputStream): Float {
        reset()
        val given = DataInputStream(input.buffered())
        val wanted = DataInputStream(expected.buffered())
        val values = ByteArray(INPUT_VALUES * VECTOR_BYTES)
        val row = ByteArray(CLASSES * FLOAT_BYTES)
        var low = Float.POSITIVE_INFINITY
        var high = Float.NEGATIVE_INFINITY
        var error = 0f
        repeat(VECTOR_STEPS) {
            given.readFully(values)
            wanted.readFully(row)
            start(this.input)
{% if main.dtype != stored.name %}
            for (value in values) this.input.putFloat((value.toInt() and 0xff).toFloat())
{% else %}
            this.input.put(values)
{% endif %}
            val found = run(this.input)
            val floats = ByteBuffer.wrap(row).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
            for (index in 0 until CLASSES) {
                low = min(low, floats[index])
                high = max(high, floats[index])
                error = max(error, abs(found[index] - floats[index]))
            }
        }
        reset()
        return if (high > low) error / (high - low) else error
    }

    override fun close() = interpreter.close()

{% if online %}
    private class State(val input: String, val output: String, val values: Int)

{% endif %}
    companion object {
        const val SIGNATURE = "serving_default"
        /** Side of a frame, and the short side that a picture is scaled to before this square is cut from its centre. */
        const val SIZE = {{ contract.size }}
        const val RESIZE = {{ contract.resize }}
{% if not online %}
        const val FRAMES = {{ contract.frames }}
{% endif %}
{% if paced %}
        /** Frames a second. */
        const val FPS = {{ contract.target_fps }}
        /** Seconds by which a frame may be early. */
        private const val CLOCK_SLACK = {{ slack }}
{% endif %}
        const val CLASSES = {{ contract.classes }}
        const val WINDOW = {{ smoothing.window }}
        const val THRESHOLD = {{ smoothing.threshold }}f
        const val HOLD = {{ smoothing.hold }}
        /** Largest [selfCheck] of a device that computes what it should. */
        const val TOLERANCE = {{ "%g" | format(vector.tolerance) }}f
        private const val NONE = -1
        private const val FLOAT_BYTES = 4
        private const val VECTOR_STEPS = {{ vector.inputs | length }}
        private const val VECTOR_BYTES = {{ stored.itemsize }}
        private const val INPUT_VALUES = {{ main.lengths() | join(" * ") }}
        private const val INPUT_BYTES = {{ input_bytes }}
{% if rgb %}
        /** Where the network's channels, {{ order }}, stand in a pixel. */
        private val SHIFTS = intArrayOf({{ "0, 8, 16" if order == "BGR" else "16, 8, 0" }})
{% if not embedded %}
        private val MEAN = doubleArrayOf({{ contract.mean | join(", ") }})
        private val STD = doubleArrayOf({{ contract.std | join(", ") }})
{% endif %}
{% endif %}
{% if online %}

        /** Each state goes in under one name and comes out, for the next frame, under the other. */
        private val STATES = arrayOf(
{% for pair in contract.states %}
            State("{{ pair.input }}", "{{ pair.output }}", {{ contract.inputs[loop.index].lengths() | join(" * ") }}){{ "" if loop.last else "," }}
{% endfor %}
        )
{% endif %}

        /** Names of the classes, in the order of the logits. */
        val LABELS: List<String> = listOf(
{% for label in contract.class_names %}
            {{ label | json | replace("$", "\\$") }}{{ "" if loop.last else "," }}
{% endfor %}
        )

        /** Copies a model's bytes to where the interpreter takes them from. */
        fun buffer(bytes: ByteArray): ByteBuffer {
            val buffer = empty(bytes.size)
            buffer.put(bytes)
            start(buffer)
            return buffer
        }
{% if not online %}

        /** Returns the frames to take from a video of [total]. */
        fun indices(total: Int): IntArray {
{% if contract.stride is not none %}
            val room = max(0, total - ((FRAMES - 1) * {{ contract.stride }} + 1))
            return IntArray(FRAMES) { (room / 2 + {{ contract.stride }} * it) % total }
{% else %}
            return IntArray(FRAMES) { (2 * it + 1) * total / (2 * FRAMES) }
{% endif %}
        }
{% endif %}

        private fun empty(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())
{% if online %}

        private fun zeros() = STATES.map { empty(it.values * FLOAT_BYTES) }
{% endif %}

        /** The interpreter reads and writes from a buffer's position on. (ByteBuffer's own rewind needs Android 14.) */
        private fun start(vararg buffers: Buffer) = buffers.forEach { it.rewind() }
    }
}
