// Stands in for LiteRT's Interpreter, which no JVM but Android's loads: the same calls, buffers filled from their
// position on as there (TensorImpl.setTo, copyTo), and a network that anyone can work out:
//
//     drive = mean over the input of value (index mod 3 + index / size) / 100: no two channels or times count alike
//     logits[i] = 3 sin((i + 1) total), total = drive + the last values of all states
//     next_state_k = state_k / 2 + (k + 1) drive
//
// `tests/test_kit.py` does the same sum.
package org.tensorflow.lite

import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.sin

class Interpreter(private val model: ByteBuffer, options: Options) : Closeable {
    class Options {
        var threads = -1

        fun setNumThreads(threads: Int): Options {
            this.threads = threads
            return this
        }
    }

    init {
        check(options.threads > 0)
        check(model.isDirect && model.position() == 0)
        open += 1
    }

    fun runSignature(inputs: Map<String, Any>, outputs: Map<String, Any>, signature: String) {
        check(signature == "serving_default")
        val states = inputs.keys.filter { it.startsWith("state_") }.sortedBy { it.removePrefix("state_").toInt() }
        check(outputs.keys == setOf("logits") + states.map { "next_$it" }) { "${outputs.keys}" }
        val main = (inputs.keys - states).single()
        check(main == if (states.isEmpty()) "clip" else "frame")

        var drive = 0.0
        val input = native(inputs[main])
        val count = if (floatInput) input.remaining() / 4 else input.remaining()
        for (index in 0 until count) {
            val value = if (floatInput) input.getFloat().toDouble() else (input.get().toInt() and 0xff).toDouble()
            drive += value * (index % 3 + index.toDouble() / count)
        }
        drive /= 100.0 * count
        var total = drive
        val results = HashMap<String, FloatArray>()
        states.forEachIndexed { k, name ->
            val state = native(inputs[name])
            val values = FloatArray(state.remaining() / 4) { state.getFloat() }
            total += values.last()
            results["next_$name"] = FloatArray(values.size) { values[it] / 2 + (drive * (k + 1)).toFloat() }
        }
        val logits = native(outputs["logits"])
        results["logits"] = FloatArray(logits.remaining() / 4) { (3 * sin(total * (it + 1))).toFloat() }
        // Written after all was read, and from the buffer's position on: what was not rewound overflows.
        for ((name, values) in results) {
            val buffer = outputs[name] as ByteBuffer
            check(buffer.remaining() == 4 * values.size) { "$name has room for ${buffer.remaining()} bytes" }
            for (value in values) buffer.putFloat(value)
        }
    }

    override fun close() {
        open -= 1
    }

    companion object {
        var open = 0

        /** Whether the model that is played takes floats. */
        var floatInput = false

        /** A view, so that the caller's position stays where it is, as it does on a phone. */
        private fun native(buffer: Any?): ByteBuffer {
            check(buffer is ByteBuffer && buffer.isDirect && buffer.order() == ByteOrder.nativeOrder())
            check(buffer.position() == 0) { "a buffer is read from its start" }
            return buffer.duplicate().order(ByteOrder.nativeOrder())
        }
    }
}
