// Stand-ins for what the README of a kit uses of Android.
package android.content

import java.io.File
import java.io.InputStream

class AssetManager(private val folder: File) {
    fun open(name: String): InputStream = File(folder, name).inputStream()
}

class Context(folder: File) {
    val assets = AssetManager(folder)
}
