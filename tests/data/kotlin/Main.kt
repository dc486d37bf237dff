// Drives the classes of five kits and prints what they say, a line each; `tests/test_kit.py` reads them.
import android.content.Context
import android.graphics.Bitmap
import java.io.File
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter
import tsmzoo.ByteClips
import tsmzoo.ByteFrames
import tsmzoo.FloatFrames
import tsmzoo.FlowClips
import tsmzoo.ManyLabels

/** A picture that its number tells, darker after every tenth, with more red than green and more green than blue. */
fun picture(number: Int, size: Int) = IntArray(size * size) {
    val top = 256 shr (number / 10 % 3)
    val (red, green, blue) = listOf(number * 37 + it, number * 11 + 3 * it, number + 7 * it)
    (0xff shl 24) or (red % top shl 16) or (green % (top / 2) shl 8) or blue % (top / 4)
}

fun check(folder: File, selfCheck: (InputStream, InputStream) -> Float) {
    println("check ${selfCheck(File(folder, "input.bin").inputStream(), File(folder, "logits.bin").inputStream())}")
}

fun byteFrames(folder: File) {
    val model = readme.byteframes.open(Context(folder))
    check(folder, model::selfCheck)
    for (round in 0 until 2) {
        for (number in 0 until 40) {
            val answer = model.see(picture(number, ByteFrames.SIZE))
            check(answer == model.answer)
            println("answer $round ${answer?.index} ${answer?.label} ${answer?.probability}")
        }
        model.reset()
        check(model.answer == null)
    }
    val times = (0 until 60).map { it / 30.0 } + listOf(9.0, 9.01, 9.3, 2.0, 2.01, 2.3, 20.0, 20.249, 20.4975)
    println("due ${times.map { if (model.isDue(it)) 1 else 0 }.joinToString(" ")}")
    check(readme.byteframes.look(model, Bitmap(640, 480), 100.0) == null) { "one frame decides nothing" }
    model.close()
    check(Interpreter.open == 0)
}

fun floatFrames(folder: File) {
    Interpreter.floatInput = true
    FloatFrames(FloatFrames.buffer(ByteArray(8)), window = 1, threshold = 0f, hold = 1).use { model ->
        check(folder, model::selfCheck)
        repeat(3) { println("answer ${model.see(picture(it, FloatFrames.SIZE))}") }
    }
}

fun byteClips(folder: File) {
    val model = readme.byteclips.open(Context(folder))
    check(folder, model::selfCheck)
    repeat(3) { number ->
        println("answer ${model.see(List(ByteClips.FRAMES) { picture(number + it, ByteClips.SIZE) })}")
    }
    for (total in intArrayOf(1, 5, 8, 100)) println("indices $total ${ByteClips.indices(total).joinToString(" ")}")
    println("wrong ${runCatching { model.see(listOf()) }.exceptionOrNull()?.message}")
    check(readme.byteclips.look(model, List(ByteClips.FRAMES) { Bitmap(48, 64) }) == model.answer)
}

fun flowClips(folder: File) {
    Interpreter.floatInput = true
    val model = FlowClips(FlowClips.buffer(ByteArray(8)))
    check(folder, model::selfCheck)
    val bytes = File(folder, "input.bin").readBytes()
    val clip = ByteBuffer.allocateDirect(bytes.size / 3 * 4).order(ByteOrder.nativeOrder())
    for (index in 0 until bytes.size / 3) clip.putFloat((bytes[index].toInt() and 0xff).toFloat())
    println("answer ${model.see(clip)}")
    for (total in intArrayOf(1, 5, 8, 100)) println("indices $total ${FlowClips.indices(total).joinToString(" ")}")
}

fun manyLabels(folder: File) {
    ManyLabels(ManyLabels.buffer(ByteArray(8)), window = 1, hold = 1).use { model ->
        check(folder, model::selfCheck)
        repeat(20) { println("answer ${model.see(picture(it, ManyLabels.SIZE))}") }
    }
}

fun main(arguments: Array<String>) {
    val folder = File(arguments[1])
    when (arguments[0]) {
        "ByteFrames" -> byteFrames(folder)
        "FloatFrames" -> floatFrames(folder)
        "ByteClips" -> byteClips(folder)
        "FlowClips" -> flowClips(folder)
        "ManyLabels" -> manyLabels(folder)
    }
}
