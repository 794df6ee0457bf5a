// Package table prints rows in aligned columns, as all of toastdev does.
package table

import (
	"io"

	"github.com/jedib0t/go-pretty/v6/table"
)

// Row is a row's cells, and ColumnConfig how a column is printed.
type (
	Row          = table.Row
	ColumnConfig = table.ColumnConfig
)

// New is a table that Render prints to w.
func New(w io.Writer) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	return t
}
