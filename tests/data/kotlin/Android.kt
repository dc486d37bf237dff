// Stand-ins for what the README of a kit uses of Android, to be compiled against and never run.
package android.graphics

class Bitmap(val width: Int, val height: Int) {
    fun getPixels(pixels: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
        check(offset + (height - 1) * stride + width <= pixels.size)
        check(x >= 0 && y >= 0 && x + width <= this.width && y + height <= this.height)
    }

    companion object {
        fun createScaledBitmap(source: Bitmap, width: Int, height: Int, filter: Boolean): Bitmap {
            check(filter && source.width > 0)
            return Bitmap(width, height)
        }
    }
}
